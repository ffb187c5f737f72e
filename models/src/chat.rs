//! Documents as the model sees them: plain stories, and conversations in ChatML.
//!
//! In a conversation a story is asked for, in many wordings, and told; small talk is answered
//! briefly, and a question about the world is answered by saying what this model is for.

use crate::story::{Story, pick, tell};
use crate::tokenizer::{END_OF_TURN, START_OF_TURN};
use rand::Rng;
use rand::seq::IndexedRandom;

/// Requests without a subject.
const ASK: &[&str] = &[
    "Tell me a story",
    "Tell me a story",
    "Please tell me a story",
    "Can you tell me a story",
    "Write a story",
    "Write me a story",
    "I want to hear a story",
    "Tell me a short story",
    "Make up a story",
    "Could you write a little story for me",
    "A story, please",
    "Tell me something nice",
    "I would like a bedtime story",
    "Tell a story to my child",
    "Another story, please",
    "Please write a short story",
];
/// Requests for a story about a subject, which follows.
const ASK_ABOUT: &[&str] = &[
    "Tell me a story about",
    "Tell me a story about",
    "Tell me a story about",
    "Please tell me a story about",
    "Can you tell me a story about",
    "Write a story about",
    "Write a short story about",
    "I want to hear a story about",
    "Make up a story about",
    "Tell me about",
    "Could you write a story about",
    "A story about",
    "Do you know a story about",
    "Write me a little story about",
    "Give me a bedtime story about",
    "Story about",
];
/// Small talk: what may be said, and what may be answered.
const SMALL_TALK: &[(&[&str], &[&str])] = &[
    (
        &["Hello", "Hi", "Hey", "Hello there", "Good morning", "Hi there", "Good evening", "Hey there"],
        &["Hello! Would you like to hear a story?", "Hi! Shall I tell you a story?"],
    ),
    (
        &["What can you do", "How can you help me", "What are you good at", "Help", "What do you do"],
        &["I can tell you little stories. Ask me for a story about a cat, for example."],
    ),
    (
        &["Who are you", "What are you", "What is your name", "Are you a robot", "Are you a person"],
        &["I am a very small language model. I tell little stories."],
    ),
    (
        &["How are you", "How are you today", "How do you do"],
        &["I am fine, thank you! Shall I tell you a story?"],
    ),
    (
        &["Thank you", "Thanks", "That was nice", "Thank you very much", "I liked it", "Great", "Good story"],
        &["You are welcome! Would you like to hear another story?"],
    ),
    (&["Goodbye", "Bye", "Good night", "See you"], &["Goodbye! Come back for another story."]),
];
/// What this model cannot do, in two halves, and how it says so.
const OUT_OF_REACH: &[(&[&str], &[&str])] = &[
    (
        &[
            "What is",
            "Where is",
            "Explain",
            "Tell me the meaning of",
            "What do you know about",
            "Why is there",
        ],
        &[
            "the capital of France",
            "2 + 2",
            "the moon",
            "water made of",
            "the weather today",
            "Rust",
            "the speed of light",
            "10 * 7",
            "a computer",
            "the time",
            "the longest river",
            "WebAssembly",
            "gravity",
            "the best phone",
            "Germany",
            "an atom",
            "the price of gold",
            "music",
        ],
    ),
    (
        &["Write", "Give me", "Can you write", "Please make", "Show me"],
        &[
            "code in Python",
            "a letter to my boss",
            "a program",
            "a poem in French",
            "a list of countries",
            "a function in C",
            "an email",
            "a recipe",
            "a plan for my week",
            "JSON",
        ],
    ),
    (
        &["How do I", "How can I", "Why should I", "When can I"],
        &[
            "fix my car",
            "learn French",
            "install Linux",
            "cook rice",
            "get rich",
            "sort a list",
            "buy a house",
            "go to Rome",
        ],
    ),
];
const SORRY: &[&str] = &[
    "I do not know that. I only know little stories. Shall I tell you one?",
    "I am sorry, I can only tell little stories. Would you like to hear one?",
];
const YES: &[&str] = &["Yes", "Yes, please", "Yes please", "OK", "Sure", "Please do", "yes"];
const SYSTEM: &[&str] = &[
    "You are a helpful assistant.",
    "You tell stories.",
    "You are a friendly storyteller.",
    "Answer briefly.",
    "You are a helpful assistant who writes short stories for children.",
];

/// A document to learn from, with its end mark.
pub(crate) struct Document {
    /// What is tokenised, marks of turns included.
    pub(crate) text: String,
    /// The stories told in it, to tell held-out ones from training ones.
    pub(crate) stories: Vec<String>,
}

/// One document: a story as it stands about every other time, else a conversation.
pub(crate) fn document(rng: &mut impl Rng) -> Document {
    if rng.random_bool(0.5) {
        let Story { text, .. } = tell(rng);
        return Document { text: format!("{text}{END_OF_TURN}"), stories: vec![text] };
    }
    let mut turns = Vec::new();
    let mut stories = Vec::new();
    if rng.random_bool(0.1) {
        turns.push(("system", pick(rng, SYSTEM).to_owned()));
    }
    match rng.random_range(0..100) {
        0..75 => story_turns(rng, &mut turns, &mut stories),
        75..87 => small_turns(rng, &mut turns),
        87..94 => {
            small_turns(rng, &mut turns);
            story_turns(rng, &mut turns, &mut stories);
        }
        _ => {
            story_turns(rng, &mut turns, &mut stories);
            match rng.random_bool(0.5) {
                true => small_turns(rng, &mut turns),
                false => story_turns(rng, &mut turns, &mut stories),
            }
        }
    }
    let text = turns
        .iter()
        .map(|(role, text)| format!("{START_OF_TURN}{role}\n{text}{END_OF_TURN}\n"))
        .collect::<String>();
    // The last turn ends the document; the line break belongs to a turn that would follow.
    Document { text: text.trim_end().to_owned(), stories }
}

type Turns = Vec<(&'static str, String)>;

/// A request for a story, and the story.
fn story_turns(rng: &mut impl Rng, turns: &mut Turns, stories: &mut Vec<String>) {
    let Story { text, subjects } = tell(rng);
    let offered = turns.last().is_some_and(|(role, said)| *role == "assistant" && said.ends_with('?'));
    let request = match subjects.choose(rng) {
        _ if offered && rng.random_bool(0.5) => pick(rng, YES).to_owned(),
        Some(subject) if rng.random_bool(0.75) => format!("{} {subject}", pick(rng, ASK_ABOUT)),
        _ => pick(rng, ASK).to_owned(),
    };
    turns.push(("user", as_typed(rng, request)));
    stories.push(text.clone());
    turns.push(("assistant", text));
}

/// Something else than a story is said, and answered.
fn small_turns(rng: &mut impl Rng, turns: &mut Turns) {
    let (said, answer) = if rng.random_bool(0.6) {
        let (said, answers) = pick(rng, SMALL_TALK);
        (pick(rng, said).to_owned(), pick(rng, answers))
    } else {
        let (first, second) = pick(rng, OUT_OF_REACH);
        (format!("{} {}", pick(rng, first), pick(rng, second)), pick(rng, SORRY))
    };
    turns.push(("user", as_typed(rng, said)));
    turns.push(("assistant", answer.to_owned()));
}

/// People end a request with a mark or with none, and some write no capitals.
fn as_typed(rng: &mut impl Rng, request: String) -> String {
    let asks = ["Can", "Could", "Do", "What", "Who", "How", "Where", "Why", "When", "Are"];
    let mark = if asks.iter().any(|word| request.starts_with(word)) { "?" } else { "." };
    let request = match rng.random_range(0..10) {
        0..6 => request,
        6 => request + "!",
        _ => request + mark,
    };
    if rng.random_bool(0.2) { request.to_lowercase() } else { request }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_pcg::Pcg64Mcg;

    /// Every document of a sample has the property.
    fn check(property: &str, holds: impl Fn(&str) -> bool) {
        for seed in 0..3000 {
            let Document { text, .. } = document(&mut Pcg64Mcg::seed_from_u64(seed));
            assert!(holds(&text), "seed {seed} is not {property}: {text}");
        }
    }

    #[test]
    fn documents_are_well_formed() {
        check("ended once at its end", |text| text.ends_with(END_OF_TURN));
        check("balanced", |text| {
            let starts = text.matches(START_OF_TURN).count();
            text.matches(END_OF_TURN).count() == starts.max(1)
        });
        check("closed by the assistant", |text| {
            text.rsplit(START_OF_TURN)
                .next()
                .is_some_and(|last| !text.contains(START_OF_TURN) || last.starts_with("assistant\n"))
        });
        check("free of double spaces", |text| !text.contains("  "));
    }

    #[test]
    fn stories_are_reported() {
        for seed in 0..200 {
            let document = document(&mut Pcg64Mcg::seed_from_u64(seed));
            assert!(document.stories.iter().all(|story| document.text.contains(story)));
        }
    }
}
