//! What a model is set up with when it is loaded: the guest's environment, in the end.

use crate::cli;

/// What a model is set up with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Setup {
    /// The id that requests name it by; the file's name if none.
    pub(crate) name: Option<String>,
    /// What requests get that do not say otherwise, `name=value,…`; checked by the component.
    pub(crate) defaults: Option<String>,
    /// The system message of chats that bring none.
    pub(crate) system: Option<String>,
    /// What the weights of a Hugging Face folder become; the component knows which types there are.
    pub(crate) quantize: Option<String>,
}

impl Setup {
    /// The guest's environment, read when it loads its model.
    #[cfg(feature = "compiler")]
    pub(crate) fn variables(&self) -> Vec<(&'static str, &str)> {
        let all = [
            ("MODEL_ID", &self.name),
            ("WAFER_DEFAULTS", &self.defaults),
            ("WAFER_SYSTEM", &self.system),
            ("WAFER_QUANTIZE", &self.quantize),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))).collect()
    }
}

impl From<cli::Setup> for Setup {
    fn from(typed: cli::Setup) -> Self {
        let cli::Setup { name, defaults, system, weights } = typed;
        Setup { name: present(name), defaults: present(defaults), system: present(system), ..weights.into() }
    }
}

impl From<cli::Weights> for Setup {
    fn from(typed: cli::Weights) -> Self {
        Setup { quantize: present(typed.quantize), ..Setup::default() }
    }
}

/// An empty variable counts as absent.
fn present(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}
