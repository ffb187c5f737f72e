//! What a baked component says of its model, readable without running it: the custom section `wafer:model`.
//!
//! It is for people and tools. The component itself does not read it.

use serde::{Deserialize, Serialize};
#[cfg(feature = "compiler")]
use std::borrow::Cow;
#[cfg(feature = "compiler")]
use wasm_encoder::{ComponentSection, CustomSection, Encode};
use wasmparser::{Chunk, Parser, Payload};

/// The section's name.
const SECTION: &str = "wafer:model";

/// A model's description, as JSON in the section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// The id that requests name the model by.
    pub(crate) id: String,
    /// The architecture as GGUF spells it.
    pub(crate) architecture: String,
    /// Tokens of prompt and output together.
    pub(crate) context_length: u32,
    pub(crate) vocabulary_size: u32,
    /// Bytes of the weights as they are kept; absent where that was not known.
    pub(crate) weights_bytes: Option<u64>,
    /// What requests get that do not say otherwise, `name=value,…`.
    pub(crate) defaults: Option<String>,
    /// The system message of chats that bring none.
    pub(crate) system: Option<String>,
    /// The version of wafer that baked it.
    pub(crate) wafer: String,
}

impl Facts {
    /// Appends the section to a component.
    #[cfg(feature = "compiler")]
    pub(crate) fn append(&self, component: &mut Vec<u8>) -> anyhow::Result<()> {
        let data = Cow::Owned(serde_json::to_vec(self)?);
        let section = CustomSection { name: SECTION.into(), data };
        component.push(ComponentSection::id(&section));
        section.encode(component);
        Ok(())
    }

    /// The facts in a component's bytes; none in a component without a model, and in what is no component.
    pub(crate) fn find(mut rest: &[u8]) -> Option<Self> {
        let mut parser = Parser::new(0);
        loop {
            let Chunk::Parsed { payload, consumed } = parser.parse(rest, true).ok()? else { return None };
            rest = rest.get(consumed..)?;
            match payload {
                Payload::CustomSection(section) if section.name() == SECTION => {
                    return serde_json::from_slice(section.data()).ok();
                }
                Payload::ModuleSection { unchecked_range, .. }
                | Payload::ComponentSection { unchecked_range, .. } => {
                    rest = rest.get(unchecked_range.len()..)?;
                }
                Payload::End(_) => return None,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_found_again() {
        let facts = Facts {
            id: "tiny".into(),
            architecture: "llama".into(),
            context_length: 512,
            vocabulary_size: 32000,
            weights_bytes: None,
            defaults: Some("temperature=0".into()),
            system: None,
            wafer: "1.2.3".into(),
        };
        let empty = b"\0asm\x0d\0\x01\0".to_vec();
        let mut component = empty.clone();
        facts.append(&mut component).expect("it is JSON");
        assert_eq!(Facts::find(&component), Some(facts));
        for other in [&empty[..], &component[..component.len() - 1], b"GGUF", b""] {
            assert_eq!(Facts::find(other), None);
        }
    }
}
