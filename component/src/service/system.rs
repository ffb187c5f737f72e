//! A model's own system message: put in front of chats that bring none, and computed in advance.
//!
//! What is computed is a beginning of prompts, nothing more: a request compares its tokens with it, takes what
//! is equal and computes the rest. So a template may do with the message what it likes.

use std::borrow::Cow;

use serde_json::Map;

use super::{Model, Prompt, Service};
use crate::error::{Error, Result};
use crate::preset::Preset;
use crate::template::Message;

impl Service {
    /// Sets up what requests leave open. A system message is taken through the model here.
    ///
    /// # Errors
    /// [`Error::Model`] if the template has no place for a system message, or the context none for its tokens;
    /// for an encoder, which has no use for any of it.
    pub fn with_preset(mut self, preset: Preset) -> Result<Self> {
        if let Err(error) = self.backend() {
            if preset == Preset::default() {
                return Ok(self);
            }
            return Err(Error::Model(format!("{error}; defaults and system messages are for those that do")));
        }
        let without = self.chat("a");
        self.preset = preset;
        if self.preset.system.is_some() {
            let with = self.chat("a")?;
            if without.is_ok_and(|without| without == with) {
                return Err(Error::Model("the model's chat template leaves system messages out".into()));
            }
            let prefix = common(&with, &self.chat("B")?);
            let (tokens, context) = (prefix.len(), self.context_length());
            if tokens >= context {
                return Err(Error::Model(format!(
                    "the system message makes {tokens} tokens of every prompt, the model's limit is {context}"
                )));
            }
            if let Model::Generator(backend) = &mut self.model {
                backend.keep(prefix)?;
            }
        }
        Ok(self)
    }

    /// The prompt of a chat that a user opens with `text`.
    fn chat(&self, text: &str) -> Result<Vec<u32>> {
        let encoded = self.encode(&Prompt::Chat(vec![message("user", text)], Map::new()));
        encoded.map_err(|error| Error::Model(format!("the model's chat template: {error}")))
    }
}

/// The messages, with `system` in front if it exists and they have no system message of their own.
pub(super) fn added<'m>(messages: &'m [Message], system: Option<&str>) -> Cow<'m, [Message]> {
    match system {
        Some(text) if messages.iter().all(|message| message.role != "system") => {
            Cow::Owned([std::slice::from_ref(&message("system", text)), messages].concat())
        }
        _ => Cow::Borrowed(messages),
    }
}

fn message(role: &str, text: &str) -> Message {
    Message { role: role.into(), content: Some(text.into()), ..Message::default() }
}

/// What two prompts begin with.
fn common<'a>(a: &'a [u32], b: &[u32]) -> &'a [u32] {
    let length = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    &a[..length]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{CONTEXT, service, storyteller};
    use crate::generate::{Event, Request};
    use crate::template::Template;

    /// Forward passes (of at most 128 tokens, BOS in front) that the first token of a chat takes, as numbers of
    /// tokens, without those that a system message takes in advance.
    fn check(system: Option<&str>, messages: &[Message], expected: &[usize]) {
        let (service, record) = service(storyteller());
        let preset = Preset { system: system.map(str::to_owned), ..Preset::default() };
        let service = service.with_preset(preset).expect("the message fits");
        let prompt = service.encode(&Prompt::Chat(messages.to_vec(), Map::new())).expect("a prompt");
        record.forwards.borrow_mut().clear();
        let mut generation = service.generate(Request { prompt, ..Request::default() }).expect("a request");
        let first = generation.find(|event| !matches!(event, Ok(Event::Prefill { .. })));
        assert!(matches!(first, Some(Ok(Event::Token { .. }))), "{first:?}");
        let forwards: Vec<usize> = record.forwards.borrow().iter().map(|&(tokens, _)| tokens).collect();
        assert_eq!(forwards, expected, "{system:?} {messages:?}");
    }

    #[test]
    fn a_preset_message_is_computed_once() {
        let user = message("user", "hello");
        let long = "s".repeat(200);
        check(None, std::slice::from_ref(&user), &[6]);
        check(Some("rules"), std::slice::from_ref(&user), &[5]);
        check(Some(&long), std::slice::from_ref(&user), &[5]);
        // A message of the chat's own takes its place; what both begin with is still used.
        check(Some("rules"), &[message("system", "rubber"), user.clone()], &[9]);
        check(Some("rules"), &[message("system", "xyz"), user], &[8]);
    }

    #[test]
    fn a_message_without_a_place_is_refused() {
        let refused = |service: Service, system: &str| {
            let preset = Preset { system: Some(system.into()), ..Preset::default() };
            let Err(error) = service.with_preset(preset) else { panic!("{system:?} was taken") };
            error.to_string()
        };
        let error = refused(service(storyteller()).0, &"s".repeat(CONTEXT));
        assert!(error.contains("301 tokens") && error.contains("300"), "{error}");

        let (mut deaf, _) = service(storyteller());
        let source = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}";
        deaf.template = Template::new(source, "<s>", "</s>").expect("a template");
        let error = refused(deaf, "rules");
        assert!(error.contains("leaves system messages out"), "{error}");
    }
}
