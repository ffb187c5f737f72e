// Records what llama.cpp computes with the files that the test writes to DIR when WAFER_WRITE_GGUF=DIR is set:
// `record DIR VERSION NAME... > references.json`, VERSION being llama.cpp's.
//
// Build it against llama.cpp's libraries: llama, ggml, ggml-cpu, ggml-base. The cache is kept in 32 bits and attention
// is the plain one, so that what is recorded is as exact as llama.cpp can be.

#include "llama.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

static const int GREEDY = 24;

// Appends the tokens, and returns the logits of the last.
static const float * decode(llama_context * context, std::vector<llama_token> & tokens) {
    if (llama_decode(context, llama_batch_get_one(tokens.data(), (int32_t) tokens.size())) != 0) {
        return nullptr;
    }
    return llama_get_logits_ith(context, -1);
}

static int record(const std::string & path, std::vector<llama_token> tokens) {
    llama_model_params model_params = llama_model_default_params();
    // Repacked weights would take other kernels than those that ggml calls its reference.
    model_params.use_extra_bufts = false;
    llama_model * model = llama_model_load_from_file(path.c_str(), model_params);
    if (!model) {
        return 1;
    }
    llama_context_params params = llama_context_default_params();
    params.n_ctx = 256;
    params.n_threads = params.n_threads_batch = 1;
    params.type_k = params.type_v = GGML_TYPE_F32;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    llama_context * context = llama_init_from_model(model, params);
    const int vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model));
    std::string greedy;
    for (int i = 0; i < GREEDY; i++) {
        const float * logits = context ? decode(context, tokens) : nullptr;
        if (!logits) {
            return 1;
        }
        if (i == 0) {
            printf("\"logits\": [");
            for (int id = 0; id < vocabulary; id++) {
                printf("%s%.7g", id ? "," : "", logits[id]);
            }
            printf("], ");
        }
        tokens = { (llama_token) (std::max_element(logits, logits + vocabulary) - logits) };
        greedy += (i ? "," : "") + std::to_string(tokens[0]);
    }
    printf("\"greedy\": [%s]", greedy.c_str());
    llama_free(context);
    llama_model_free(model);
    return 0;
}

int main(int argc, char ** argv) {
    llama_log_set([](ggml_log_level level, const char * text, void *) {
        if (level == GGML_LOG_LEVEL_ERROR) {
            fputs(text, stderr);
        }
    }, nullptr);
    if (argc < 3) {
        fprintf(stderr, "usage: record DIR VERSION NAME...\n");
        return 2;
    }
    const std::string folder = argv[1];
    std::ifstream file(folder + "/prompt.txt");
    std::vector<llama_token> prompt;
    printf("{\n\"by\": \"%s\",\n\"prompt\": [", argv[2]);
    for (llama_token id; file >> id;) {
        printf("%s%d", prompt.empty() ? "" : ",", id);
        prompt.push_back(id);
    }
    printf("],\n\"models\": {\n");
    for (int i = 3; i < argc; i++) {
        printf("\"%s\": {", argv[i]);
        if (record(folder + "/" + argv[i] + ".gguf", prompt) != 0) {
            fprintf(stderr, "%s cannot be run\n", argv[i]);
            return 1;
        }
        printf("}%s\n", i + 1 < argc ? "," : "");
        fflush(stdout);
    }
    printf("}\n}\n");
    return 0;
}
