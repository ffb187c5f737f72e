//! The engine against third-party results: greedy tokens of trained models, perplexity of quantised ones.
//!
//! Floats must give llama.cpp's tokens exactly. Quantised files are compared by perplexity, with what a float64
//! computation on the dequantised weights gives, as every implementation quantises activations its own way.

mod common;

use std::fs::File;
use std::io::BufReader;

use common::greedy;
use serde::Deserialize;
use wafer_engine::kernels::Isa;
use wafer_engine::{Batch, Gguf, Model, Workspace};

#[derive(Deserialize)]
struct Reference {
    greedy: Vec<Greedy>,
    ppl: Perplexity,
}

#[derive(Deserialize)]
struct Greedy {
    prompt: String,
    prompt_ids: Vec<u32>,
    output_ids: Vec<u32>,
}

#[derive(Deserialize)]
struct Perplexity {
    ppl: f64,
    /// The tokens of `ppl_text.txt`; only llama.cpp's results list them.
    #[serde(default)]
    ids: Vec<u32>,
}

fn load(name: &str) -> Option<Model> {
    let path = common::testdata(&format!("models/{name}.gguf"))?;
    let file = BufReader::new(File::open(path).expect("the model file"));
    Some(Model::load(&mut Gguf::open(file).expect("a GGUF header")).expect("a model"))
}

fn reference(name: &str) -> Option<Reference> {
    let text =
        std::fs::read_to_string(common::testdata(&format!("reference/{name}.json"))?).expect("a reference");
    Some(serde_json::from_str(&text).expect("the reference's format"))
}

#[test]
fn greedy_tokens_equal_llama_cpp() {
    for name in ["stories260K-f32", "stories260K-F16", "TinyStories-656K-f32"] {
        let (Some(model), Some(reference)) = (load(name), reference(&format!("llamacpp/{name}"))) else {
            return;
        };
        for isa in Isa::available() {
            let mut workspace = Workspace::with_isa(2, isa);
            for case in &reference.greedy {
                for chunk in [1, 3, usize::MAX] {
                    let output =
                        greedy(&model, &mut workspace, &case.prompt_ids, case.output_ids.len(), chunk);
                    assert_eq!(output, case.output_ids, "{name} on {isa:?}, {:?} by {chunk}", case.prompt);
                }
            }
        }
    }
}

/// Perplexity of the token sequence that the reference's tokenizer makes of `ppl_text.txt`.
fn perplexity(model: &Model, tokens: &[u32]) -> f64 {
    let mut session = model.session();
    let mut workspace = Workspace::new(2);
    let mut batch = [Batch { session: &mut session, tokens, outputs: tokens.len() }];
    let logits = model.forward(&mut workspace, &mut batch).expect("a forward pass");
    let vocabulary = model.config().vocabulary;
    let nll = |(logits, &next): (&[f32], &u32)| {
        let largest = f64::from(logits.iter().copied().fold(f32::MIN, f32::max));
        let total: f64 = logits.iter().map(|&l| (f64::from(l) - largest).exp()).sum();
        largest + total.ln() - f64::from(logits[next as usize])
    };
    let losses: Vec<f64> = logits.chunks_exact(vocabulary).zip(&tokens[1..]).map(nll).collect();
    (losses.iter().sum::<f64>() / losses.len() as f64).exp()
}

/// A file's perplexity against float64, within `limit` (a fraction).
fn check_perplexity(name: &str, limit: f64) -> Option<()> {
    let model = load(name)?;
    let expected = reference(&format!("numpy/{name}"))?.ppl.ppl;
    let got = perplexity(&model, &reference(&format!("llamacpp/{name}"))?.ppl.ids);
    let error = (got / expected - 1.0).abs();
    assert!(error < limit, "{name}: perplexity {got:.4}, expected {expected:.4}");
    Some(())
}

#[test]
fn perplexity_of_quantised_files_is_that_of_float64() {
    for family in ["stories260K", "TinyStories-656K"] {
        for kind in ["f32", "F16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K_M"] {
            let limit = match kind {
                "f32" => 0.0005,
                "F16" | "Q8_0" => 0.01,
                _ => 0.03,
            };
            if check_perplexity(&format!("{family}-{kind}"), limit).is_none() {
                return;
            }
        }
    }
}

/// Random weights whose rows are long enough for every K type, with Llama's and with Qwen2's decoder.
#[test]
fn k_types_and_qwen2_have_the_perplexity_of_float64() {
    for family in ["tiny-llama-random", "tiny-qwen2-random"] {
        for kind in ["f32", "F16", "Q8_0", "Q4_0", "Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K"] {
            let limit = if kind == "f32" { 0.0005 } else { 0.01 };
            if check_perplexity(&format!("{family}-{kind}"), limit).is_none() {
                return;
            }
        }
    }
}
