//! From a vector per token to one per text, as a folder of sentence-transformers says it.
//!
//! `modules.json` lists what follows the transformer: pooling, perhaps normalisation. A folder without it is a plain
//! model, whose vectors are averaged, which is also what sentence-transformers does with it.

use serde::Deserialize;
use serde_json::Value;

use super::Files;
use crate::error::{Error, Result};

/// What becomes of the tokens' vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pooling {
    pub(super) mode: Mode,
    /// The result is scaled to length 1.
    pub(super) normalize: bool,
}

/// Which tokens count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// All of them, averaged.
    Mean,
    /// The first.
    Cls,
}

/// An entry of modules.json.
#[derive(Deserialize)]
struct Module {
    #[serde(default)]
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

impl Pooling {
    /// Reads `modules.json` and the pooling's own `config.json`.
    pub(super) fn read(files: Files<'_>) -> Result<Self> {
        let mut pooling = Self { mode: Mode::Mean, normalize: false };
        let Some(modules) = files("modules.json")? else {
            if let Some(config) = files("1_Pooling/config.json")? {
                pooling.mode = mode(&config)?;
            }
            return Ok(pooling);
        };
        let modules: Vec<Module> = serde_json::from_value(modules)
            .map_err(|error| Error::Model(format!("modules.json cannot be used: {error}")))?;
        for Module { path, kind } in modules {
            match kind.rsplit('.').next().unwrap_or_default() {
                "Transformer" => {}
                "Pooling" => {
                    // A name with a path in it could lead anywhere.
                    if path.is_empty() || path.contains(['/', '\\']) || path.starts_with('.') {
                        let text = format!("modules.json names {path:?}, which is no plain folder name");
                        return Err(Error::Model(text));
                    }
                    let name = format!("{path}/config.json");
                    let missing = || Error::Model(format!("{name} is missing"));
                    pooling.mode = mode(&files(&name)?.ok_or_else(missing)?)?;
                }
                "Normalize" => pooling.normalize = true,
                _ => {
                    let text =
                        format!("modules.json has {kind}, known are Transformer, Pooling and Normalize");
                    return Err(Error::Model(text));
                }
            }
        }
        Ok(pooling)
    }
}

/// The mode: by name, or as one of several switches.
fn mode(config: &Value) -> Result<Mode> {
    const SWITCH: &str = "pooling_mode_";
    let chosen: Vec<&str> = match config.get("pooling_mode").and_then(Value::as_str) {
        Some(name) => vec![name],
        None => {
            let switches = config.as_object().into_iter().flatten();
            let on = switches.filter(|(_, value)| value.as_bool() == Some(true));
            on.filter_map(|(key, _)| key.strip_prefix(SWITCH)).collect()
        }
    };
    match chosen.as_slice() {
        ["mean" | "mean_tokens"] => Ok(Mode::Mean),
        ["cls" | "cls_token"] => Ok(Mode::Cls),
        other => Err(Error::Model(format!("pooling {:?}, known are mean and cls", other.join(" and ")))),
    }
}

/// Tokens of a text at most, where sentence-transformers or the tokenizer set a limit of their own.
pub(super) fn limit(files: Files<'_>) -> Result<Option<usize>> {
    let number = |value: &Value| usize::try_from(value.as_u64()?).ok();
    if let Some(config) = files("sentence_bert_config.json")? {
        if config.get("do_lower_case").and_then(Value::as_bool) == Some(true) {
            return Err(Error::Model("do_lower_case in sentence_bert_config.json is not supported".into()));
        }
        if let Some(limit) = config.get("max_seq_length").and_then(number) {
            return Ok(Some(limit));
        }
    }
    // A tokenizer without a limit says 10³⁰, which is no such number.
    Ok(files("tokenizer_config.json")?
        .as_ref()
        .and_then(|settings| number(settings.get("model_max_length")?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a folder with these files says, or a part of the error.
    fn check(files: &[(&str, &str)], expected: Result<(Mode, bool), &str>) {
        let read = |name: &str| {
            let found = files.iter().find(|(known, _)| *known == name);
            Ok(found.map(|(_, text)| serde_json::from_str(text).expect("JSON")))
        };
        match (Pooling::read(&read), expected) {
            (Ok(Pooling { mode, normalize }), Ok(expected)) => assert_eq!((mode, normalize), expected),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{part:?} not in {error}"),
            (found, expected) => panic!("{files:?}: {found:?}, not {expected:?}"),
        }
    }

    #[test]
    fn modules_say_what_follows_the_transformer() {
        let pooling = r#"[{"path": "", "type": "a.Transformer"}, {"path": "1_P", "type": "b.Pooling"}]"#;
        let normal = r#"[{"path": "1_P", "type": "b.Pooling"}, {"path": "2", "type": "c.Normalize"}]"#;
        check(&[], Ok((Mode::Mean, false)));
        let switches = r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}"#;
        check(&[("1_Pooling/config.json", switches)], Ok((Mode::Cls, false)));
        check(&[("modules.json", pooling), ("1_P/config.json", switches)], Ok((Mode::Cls, false)));
        let named = r#"{"pooling_mode": "mean", "include_prompt": true}"#;
        check(&[("modules.json", normal), ("1_P/config.json", named)], Ok((Mode::Mean, true)));
        check(&[("modules.json", pooling)], Err("1_P/config.json is missing"));
        let both = r#"{"pooling_mode_cls_token": true, "pooling_mode_max_tokens": true}"#;
        check(&[("1_Pooling/config.json", both)], Err("cls_token and max_tokens"));
        check(&[("1_Pooling/config.json", "[]")], Err("known are mean and cls"));
        check(&[("modules.json", r#"[{"path": "../x", "type": "Pooling"}]"#)], Err("../x"));
        check(&[("modules.json", r#"[{"path": "2_Dense", "type": "a.Dense"}]"#)], Err("a.Dense"));
        check(&[("modules.json", "{}")], Err("modules.json"));
    }
}
