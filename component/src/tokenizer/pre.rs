//! Pre-tokenizers: the patterns that cut a text into words before byte-level BPE, by the names GGUF has for
//! them.
//!
//! A model was trained with one of these, and another cut gives other tokens. Several patterns apply one
//! after the other, each to the pieces the one before left: both its matches and what lies between them are
//! pieces. Patterns are written as in the models' own tokenizer.json, which often end in `\s+(?!\S)|\s+`: of
//! a run of white space, the last character goes with the next word. That is the only look-ahead among them,
//! so [`Pattern`] does it by hand on an engine without backtracking: any text takes linear time.

use regex::Regex;

use crate::error::{Error, Result};

/// A row of the table.
struct Entry {
    /// What `tokenizer.ggml.pre` may say.
    names: &'static [&'static str],
    patterns: &'static [&'static str],
    /// A word that is a token is that token, whatever the merges say.
    whole_words: bool,
    /// Whether a BOS token is added where the file does not say.
    add_bos: bool,
}

/// The end of most patterns; see the module's text.
const SPACES: &str = r"|\s+(?!\S)|\s+";

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

const QWEN35: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}",
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

const GPT4O: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

const KIMI: &str = concat!(
    r"[\p{Han}]+",
    r"|[^\r\n\p{L}\p{N}]?[[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]&&[^\p{Han}]]*[[\p{Ll}\p{Lm}\p{Lo}\p{M}]&&[^\p{Han}]]+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]&&[^\p{Han}]]+[[\p{Ll}\p{Lm}\p{Lo}\p{M}]&&[^\p{Han}]]*",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

const DEEPSEEK3: &str = concat!(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"##,
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// Letters with case, as deepseek-llm lists them.
const DEEPSEEK_LETTERS: &str = concat!(
    r"\s?[",
    r"A-Za-z\u{B5}\u{C0}-\u{D6}\u{D8}-\u{F6}\u{F8}-\u{1BA}\u{1BC}-\u{1BF}\u{1C4}-\u{293}",
    r"\u{295}-\u{2AF}\u{370}-\u{373}\u{376}-\u{377}\u{37B}-\u{37D}\u{37F}\u{386}\u{388}-\u{38A}\u{38C}",
    r"\u{38E}-\u{3A1}\u{3A3}-\u{3F5}\u{3F7}-\u{481}\u{48A}-\u{52F}\u{531}-\u{556}\u{10A0}-\u{10C5}",
    r"\u{13A0}-\u{13F5}\u{13F8}-\u{13FD}\u{1C90}-\u{1CBA}\u{1CBD}-\u{1CBF}\u{1D00}-\u{1D2B}",
    r"\u{1D6B}-\u{1D77}\u{1D79}-\u{1D9A}\u{1E00}-\u{1F15}\u{1F18}-\u{1F1D}\u{1F20}-\u{1F45}",
    r"\u{1F48}-\u{1F4D}\u{1F50}-\u{1F57}\u{1F59}\u{1F5B}\u{1F5D}\u{1F5F}-\u{1F7D}\u{1F80}-\u{1FB4}",
    r"\u{1FB6}-\u{1FBC}\u{1FBE}\u{1FC2}-\u{1FC4}\u{1FC6}-\u{1FCC}\u{1FD0}-\u{1FD3}\u{1FD6}-\u{1FDB}",
    r"\u{1FE0}-\u{1FEC}\u{1FF2}-\u{1FF4}\u{1FF6}-\u{1FFC}\u{2102}\u{2107}\u{210A}-\u{2113}\u{2115}",
    r"\u{2119}-\u{211D}\u{2124}\u{2126}\u{2128}\u{212A}-\u{212D}\u{212F}-\u{2134}\u{2139}",
    r"\u{213C}-\u{213F}\u{2145}-\u{2149}\u{214E}\u{2183}-\u{2184}\u{2C00}-\u{2C7B}\u{2C7E}-\u{2CE4}",
    r"\u{2CEB}-\u{2CEE}\u{2CF2}-\u{2CF3}\u{A640}-\u{A66D}\u{A680}-\u{A69B}\u{A722}-\u{A76F}",
    r"\u{A771}-\u{A787}\u{A78B}-\u{A78E}\u{AB70}-\u{ABBF}\u{FB00}-\u{FB06}\u{FB13}-\u{FB17}",
    r"\u{FF21}-\u{FF3A}\u{FF41}-\u{FF5A}\u{10400}-\u{1044F}\u{104B0}-\u{104D3}\u{104D8}-\u{104FB}",
    r"\u{10C80}-\u{10CB2}\u{10CC0}-\u{10CF2}\u{118A0}-\u{118DF}\u{1E900}-\u{1E943}",
    r"]+",
);

const BAILING: &str = concat!(
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
);

const SEED: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+",
);

const MINICPM: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

const BLOOM: &str = r" ?[^(\s|.,!?…。，、।۔،)]+";

const TABLE: &[Entry] = &[
    Entry {
        names: &["default"],
        patterns: &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"],
        whole_words: false,
        add_bos: false,
    },
    Entry {
        names: &[
            "gpt-2",
            "phi-2",
            "mpt",
            "olmo",
            "jais",
            "jina-es",
            "jina-de",
            "jina-v1-en",
            "jina-v2-es",
            "jina-v2-de",
            "jina-v2-code",
            "roberta-bpe",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "modern-bert",
            "exaone4",
            "trillion",
            "granite-docling",
        ],
        patterns: &[GPT2],
        whole_words: false,
        add_bos: false,
    },
    Entry {
        names: &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ],
        patterns: &[LLAMA3],
        whole_words: true,
        add_bos: true,
    },
    Entry {
        names: &["dbrx", "smaug-bpe", "chatglm-bpe", "glm4"],
        patterns: &[LLAMA3],
        whole_words: false,
        add_bos: false,
    },
    Entry {
        names: &[
            "qwen2",
            "deepseek-r1-qwen",
            "kormo",
            "f2llmv2",
            "megrez",
            "hunyuan",
            "solar-open",
            "stablelm2",
            "grok-2",
        ],
        patterns: &[QWEN2],
        whole_words: false,
        add_bos: false,
    },
    Entry { names: &["qwen35"], patterns: &[QWEN35], whole_words: false, add_bos: false },
    Entry {
        names: &[
            "starcoder",
            "refact",
            "command-r",
            "smollm",
            "codeshell",
            "exaone",
            "minerva-7b",
            "mellum2",
        ],
        patterns: &[r"\p{N}", GPT2],
        whole_words: false,
        add_bos: false,
    },
    Entry {
        names: &["falcon"],
        patterns: &[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"],
        whole_words: false,
        add_bos: false,
    },
    Entry {
        names: &["deepseek-llm"],
        patterns: &[
            r"[\r\n]",
            DEEPSEEK_LETTERS,
            r"\s?[!-/:-~！-／：-～‘-‟　-。]+",
            r"\s+$",
            r"[一-龥ࠀ-一가-퟿]+",
            r"\p{N}+",
        ],
        whole_words: false,
        add_bos: false,
    },
    Entry {
        names: &["deepseek-coder"],
        patterns: &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+", r"\p{N}"],
        whole_words: false,
        add_bos: false,
    },
    Entry {
        names: &["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
        patterns: &[r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK3],
        whole_words: false,
        add_bos: false,
    },
    Entry { names: &["tekken"], patterns: &[TEKKEN], whole_words: true, add_bos: true },
    Entry {
        names: &["gpt-4o", "llama4", "kanana2", "minimax-m2"],
        patterns: &[GPT4O],
        whole_words: false,
        add_bos: false,
    },
    Entry { names: &["kimi-k2"], patterns: &[KIMI], whole_words: false, add_bos: false },
    Entry {
        names: &["bloom", "poro-chat", "gpt3-finnish"],
        patterns: &[BLOOM],
        whole_words: false,
        add_bos: false,
    },
    Entry { names: &["viking"], patterns: &[BLOOM, r"\p{N}"], whole_words: false, add_bos: false },
    Entry {
        names: &["chameleon"],
        patterns: &[
            "<sentinel:[0-9]+>",
            "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
            r"([\t\n]|    |  )",
            r"\p{N}",
            r"[\p{P}!-/:-@\[-`{-~]",
            GPT2,
        ],
        whole_words: false,
        add_bos: true,
    },
    Entry {
        names: &["bailingmoe", "bailingmoe2", "llada-moe"],
        patterns: &[BAILING],
        whole_words: false,
        add_bos: false,
    },
    Entry { names: &["seed-coder"], patterns: &[SEED], whole_words: false, add_bos: false },
    Entry { names: &["minicpm5"], patterns: &[r"\p{N}{1,3}", MINICPM], whole_words: true, add_bos: false },
    Entry { names: &["laguna"], patterns: &["[^\n]+|[\n]+", QWEN2], whole_words: false, add_bos: false },
];

/// Cuts texts into words.
#[derive(Debug)]
pub(super) struct Splitter {
    patterns: Vec<Pattern>,
    /// A word that is a token is that token, whatever the merges say.
    pub(super) whole_words: bool,
    /// Whether a BOS token is added where the file does not say.
    pub(super) add_bos: bool,
}

impl Splitter {
    /// The pre-tokenizer of a name; none is `default`.
    ///
    /// # Errors
    /// [`Error::Model`] with the known names, if this is none of them.
    pub(super) fn named(name: Option<&str>) -> Result<Self> {
        let name = name.unwrap_or("default");
        let Some(entry) = TABLE.iter().find(|entry| entry.names.contains(&name)) else {
            let known: Vec<_> = TABLE.iter().flat_map(|entry| entry.names).copied().collect();
            return Err(Error::Model(format!(
                "tokenizer.ggml.pre is {name:?}, which is not one of: {}",
                known.join(", ")
            )));
        };
        let patterns = entry.patterns.iter().map(|pattern| Pattern::new(pattern)).collect::<Result<_>>()?;
        Ok(Self { patterns, whole_words: entry.whole_words, add_bos: entry.add_bos })
    }

    /// Hands the words of `text` to `word`, in order; together they are the text.
    pub(super) fn split(&self, text: &str, word: &mut dyn FnMut(&str) -> Result<()>) -> Result<()> {
        split(&self.patterns, text, word)
    }
}

fn split(patterns: &[Pattern], text: &str, word: &mut dyn FnMut(&str) -> Result<()>) -> Result<()> {
    let Some((pattern, rest)) = patterns.split_first() else {
        return if text.is_empty() { Ok(()) } else { word(text) };
    };
    let mut position = 0;
    while let Some((start, end)) = pattern.find(text, position) {
        split(rest, text.get(position..start).unwrap_or_default(), word)?;
        split(rest, text.get(start..end).unwrap_or_default(), word)?;
        position = end;
    }
    split(rest, text.get(position..).unwrap_or_default(), word)
}

/// One pattern, its look-ahead taken off.
#[derive(Debug)]
struct Pattern {
    regex: Regex,
    /// It ended in [`SPACES`].
    spaces: bool,
    /// An earlier alternative takes every run of white space with a line break in it.
    breaks: bool,
}

impl Pattern {
    fn new(source: &str) -> Result<Self> {
        let head = source.strip_suffix(SPACES);
        let pattern = head.map_or_else(|| source.to_owned(), |head| format!(r"{head}|\s+"));
        let regex = Regex::new(&pattern)
            .map_err(|error| Error::Model(format!("the pre-tokenizer's pattern is at fault: {error}")))?;
        Ok(Self { regex, spaces: head.is_some(), breaks: source.contains(r"|\s*[\r\n]") })
    }

    /// The first match at or after `position` that is not empty.
    fn find(&self, text: &str, position: usize) -> Option<(usize, usize)> {
        let found = self.regex.find_at(text, position).filter(|found| !found.is_empty())?;
        let last = found.as_str().chars().next_back()?;
        let shorter = found.end() - last.len_utf8();
        let give_back = self.spaces
            && found.end() < text.len()
            && found.start() < shorter
            && found.as_str().chars().all(char::is_whitespace)
            && !(self.breaks && matches!(last, '\r' | '\n'));
        Some((found.start(), if give_back { shorter } else { found.end() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words<'a>(splitter: &Splitter, text: &'a str) -> Vec<&'a str> {
        let (mut all, mut position) = (Vec::new(), 0);
        splitter
            .split(text, &mut |word| {
                all.push(&text[position..position + word.len()]);
                position += word.len();
                Ok(())
            })
            .unwrap();
        assert_eq!(all.concat(), text);
        all
    }

    #[test]
    fn every_entry_compiles_and_keeps_the_text() {
        let text = " \n\n  Hello, I'LL  take 12345 Äpfel　und 漢字かな!\r\n\r\n\t<a href='x'>  é e\u{301} 🦙\u{a0}x \n";
        let mut seen = std::collections::BTreeSet::new();
        for name in TABLE.iter().flat_map(|entry| entry.names) {
            assert!(seen.insert(name), "{name} is listed twice");
            let splitter = Splitter::named(Some(name)).unwrap();
            assert!(words(&splitter, text).len() > 5, "{name}");
            assert_eq!(words(&splitter, ""), [""; 0]);
        }
    }

    /// The look-ahead done by hand against a backtracking engine that has it.
    #[test]
    fn spaces_are_cut_as_the_look_ahead_says() {
        let parts = ["", " ", "  ", "\n", "\t ", "a", "'s", "7", "!", "\r\n", "\u{a0}", "b \n c", "é"];
        for entry in TABLE {
            let [pattern] = entry.patterns else { continue };
            let splitter = Splitter::named(Some(entry.names[0])).unwrap();
            let truth = fancy_regex::Regex::new(pattern).unwrap();
            for n in 0..parts.len().pow(3) {
                let k = parts.len();
                let text = [parts[n % k], parts[n / k % k], parts[n / k / k]].concat();
                let (mut expected, mut position) = (Vec::new(), 0);
                for found in truth.find_iter(&text).map(|found| found.unwrap()) {
                    expected.extend([&text[position..found.start()], found.as_str()]);
                    position = found.end();
                }
                expected.push(&text[position..]);
                expected.retain(|word| !word.is_empty());
                assert_eq!(words(&splitter, &text), expected, "{:?} {text:?}", entry.names);
            }
        }
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        let error = Splitter::named(Some("llama-9")).unwrap_err().to_string();
        assert!(error.contains("\"llama-9\"") && error.contains("llama-bpe, llama3"), "{error}");
    }
}
