//! What is set up together with a model: answers to what a request leaves open.
//!
//! Operators write it when they bake or start a model; it never changes afterwards. A request's own values win.
//! Whether the values make sense for the model is checked once, here, so that no request can fail over them.

use std::str::FromStr;

use crate::error::{Error, Result};
use crate::nearest::nearest;
use crate::sampler::Sampling;

/// The names that [`Preset::new`] knows, as requests spell them.
const NAMES: [&str; 8] = [
    "max_tokens",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
];

/// Defaults of requests to one model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Preset {
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// New tokens at most; none leaves it to the endpoint.
    pub max_tokens: Option<u64>,
    /// The system message of chats that bring none.
    pub system: Option<String>,
}

impl Preset {
    /// Reads `defaults`, a list like `temperature=0.7,max_tokens=200`.
    ///
    /// # Errors
    /// [`Error::Model`], as the operator has to act: an unknown or repeated name, a value that is no number or
    /// outside its limits.
    pub fn new(defaults: Option<&str>, system: Option<String>) -> Result<Self> {
        Self { system, ..Self::default() }.with(defaults.unwrap_or_default())
    }

    /// The same with what `defaults` says.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with(mut self, defaults: &str) -> Result<Self> {
        let mut seen = Vec::new();
        for pair in defaults.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let Some((name, value)) = pair.split_once('=').map(|(name, value)| (name.trim(), value.trim()))
            else {
                return Err(Error::Model(format!("default '{pair}' is not of the form name=value")));
            };
            if seen.contains(&name) {
                return Err(Error::Model(format!("default '{name}' is given twice")));
            }
            self.set(name, value)?;
            seen.push(name);
        }
        // Biases of single tokens cannot be preset, so the vocabulary's size does not matter.
        self.sampling.check(0).map_err(|error| Error::Model(format!("default {error}")))?;
        Ok(self)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let sampling = &mut self.sampling;
        match name {
            "max_tokens" => match number(name, value)? {
                0 => return Err(Error::Model("default max_tokens is 0, it must be at least 1".into())),
                tokens => self.max_tokens = Some(tokens),
            },
            "temperature" => sampling.temperature = number(name, value)?,
            "top_k" => sampling.top_k = number(name, value)?,
            "top_p" => sampling.top_p = number(name, value)?,
            "min_p" => sampling.min_p = number(name, value)?,
            "repetition_penalty" => sampling.repetition_penalty = number(name, value)?,
            "presence_penalty" => sampling.presence_penalty = number(name, value)?,
            "frequency_penalty" => sampling.frequency_penalty = number(name, value)?,
            unknown => {
                let advice = match nearest(unknown, &NAMES) {
                    Some(known) => format!("did you mean '{known}'?"),
                    None => format!("known are {}", NAMES.join(", ")),
                };
                return Err(Error::Model(format!("default '{unknown}' is not known, {advice}")));
            }
        }
        Ok(())
    }
}

fn number<T: FromStr<Err: std::fmt::Display>>(name: &str, value: &str) -> Result<T> {
    value.parse().map_err(|error| Error::Model(format!("default {name} is '{value}': {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `defaults`; the error's text must contain every part of `expected`.
    fn check(defaults: &str, expected: &[&str]) {
        let error = Preset::new(Some(defaults), None).expect_err(defaults);
        assert!(matches!(error, Error::Model(_)), "{error:?}");
        let error = error.to_string();
        for part in expected {
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        check("warm", &["'warm'", "name=value"]);
        check("temprature=1", &["'temprature'", "did you mean 'temperature'"]);
        check("colour=red", &["'colour'", "known are max_tokens, temperature"]);
        check("top_k=2,top_k=3", &["top_k", "twice"]);
        check("top_k=-1", &["top_k", "'-1'"]);
        check("max_tokens=0", &["max_tokens", "at least 1"]);
        check("temperature=3", &["temperature is 3", "0 and 2"]);
        check("temperature=NaN", &["temperature is NaN"]);
        check("repetition_penalty=0", &["repetition_penalty is 0"]);
    }

    #[test]
    fn what_is_given_is_set_and_the_rest_is_as_without() {
        assert_eq!(Preset::new(None, None).expect("nothing is wrong"), Preset::default());
        let preset = Preset::new(Some(" temperature = 0.5, max_tokens=7,"), Some("Be kind.".into()));
        let sampling = Sampling { temperature: 0.5, ..Sampling::default() };
        let expected = Preset { sampling, max_tokens: Some(7), system: Some("Be kind.".into()) };
        assert_eq!(preset.expect("both exist"), expected);
    }

    #[test]
    fn every_name_is_known() {
        for name in NAMES {
            assert!(Preset::new(Some(&format!("{name}=1")), None).is_ok(), "{name}");
        }
    }
}
