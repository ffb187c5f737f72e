//! Little stories, made by a grammar: the text that the demo model learns from.
//!
//! A story is one plot told about one scene (hero, friend, thing, place, and so on), sentence by
//! sentence; the same random stream gives the same story. Nothing here knows of tokens or of chat.

mod lexicon;
mod plots;
mod scene;

use plots::{Beat, ENDING, OPENING, PLOTS};
use rand::Rng;
pub(crate) use scene::pick;
use scene::{Scene, with_article};

/// A story and what somebody may have asked for to be told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Story {
    /// The text, one paragraph of whole sentences.
    pub(crate) text: String,
    /// Noun phrases that complete "a story about …", each true of the text.
    pub(crate) subjects: Vec<String>,
}

/// Tells one story.
pub(crate) fn tell(rng: &mut impl Rng) -> Story {
    let scene = Scene::draw(rng);
    let plot = pick(rng, PLOTS);
    let mut sentences = Vec::new();
    for Beat { chance, wordings } in OPENING.iter().chain(plot.beats).chain(ENDING) {
        if rng.random_range(0..100) < *chance {
            sentences.push(expand(pick(rng, wordings), &scene, rng));
        }
    }
    let text = sentences.join(" ");
    let subjects = subjects(&scene, plot.theme, &text);
    Story { text, subjects }
}

/// What one may ask for: only what the text then really mentions.
fn subjects(scene: &Scene, theme: &str, text: &str) -> Vec<String> {
    let hero = with_article(scene.hero.kind);
    // A hero's kind comes more than once, because it is what people ask for most.
    let mut subjects = vec![hero.clone(), hero.clone(), hero.clone(), theme.to_owned()];
    if let Some(name) = scene.hero.name {
        subjects.extend([name.to_owned(), format!("{hero} named {name}")]);
    }
    match (scene.hero.name, scene.friend.name) {
        (Some(name), Some(friend)) if says(text, friend) => subjects.push(format!("{name} and {friend}")),
        _ if says(text, scene.friend.kind) => {
            subjects.push(format!("{hero} and {}", with_article(scene.friend.kind)));
        }
        _ => {}
    }
    if text.contains(&scene.thing.phrase()) {
        subjects.push(with_article(scene.thing.noun));
        subjects.push(with_article(&scene.thing.phrase()));
        subjects.push(format!("{hero} and {}", with_article(scene.thing.noun)));
    }
    let place = format!("the {}", scene.place());
    if text.contains(&place) {
        subjects.push(place);
    }
    subjects
}

/// Whether the word stands in the text, not merely its letters ("king" is in "walking").
fn says(text: &str, word: &str) -> bool {
    text.split(|letter: char| !letter.is_alphabetic()).any(|other| other == word)
}

/// Writes out a template: one of each `[a|b]`, and every `{slot}` from the scene.
fn expand(template: &str, scene: &Scene, rng: &mut impl Rng) -> String {
    let mut text = String::new();
    let mut rest = template;
    while let Some(at) = rest.find(['[', '{']) {
        text.push_str(&rest[..at]);
        let inner = &rest[at + 1..];
        if rest[at..].starts_with('{') {
            let (slot, after) = inner.split_once('}').expect("a slot of a template is closed");
            text.push_str(&scene.slot(slot));
            rest = after;
        } else {
            let (parts, after) = alternatives(inner);
            text.push_str(&expand(pick(rng, &parts), scene, rng));
            rest = after;
        }
    }
    text + rest
}

/// The parts of `a|b]…`, whose opening bracket is already read, and what follows them.
fn alternatives(inner: &str) -> (Vec<&str>, &str) {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0);
    for (at, letter) in inner.char_indices() {
        match letter {
            '[' => depth += 1,
            ']' if depth > 0 => depth -= 1,
            '|' if depth == 0 => {
                parts.push(&inner[start..at]);
                start = at + 1;
            }
            ']' => {
                parts.push(&inner[start..at]);
                return (parts, &inner[at + 1..]);
            }
            _ => {}
        }
    }
    panic!("a choice of a template is not closed: [{inner}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_pcg::Pcg64Mcg;
    use std::collections::HashSet;

    const SAMPLE: u64 = 5000;

    fn story(seed: u64) -> Story {
        tell(&mut Pcg64Mcg::seed_from_u64(seed))
    }

    /// Every story of a large sample has the property; the first that has not is shown.
    fn check(property: &str, holds: impl Fn(&Story) -> bool) {
        for seed in 0..SAMPLE {
            let story = story(seed);
            assert!(holds(&story), "seed {seed} is not {property}: {}", story.text);
        }
    }

    fn words(text: &str) -> HashSet<String> {
        text.split(|c: char| !c.is_alphabetic()).map(str::to_lowercase).collect()
    }

    /// Whether a sentence that starts within the story, outside speech, starts with a small letter.
    fn has_small_start(text: &str) -> bool {
        [". ", "! ", "? "].iter().any(|end| {
            text.match_indices(end).any(|(at, _)| {
                let next = text[at + 2..].trim_start_matches('"');
                next.starts_with(|c: char| c.is_lowercase())
            })
        })
    }

    #[test]
    fn stories_are_well_formed() {
        check("free of template marks", |s| !s.text.contains(['{', '}', '[', ']', '|']));
        check("free of double spaces", |s| !s.text.contains("  ") && s.text.trim() == s.text);
        check("free of spaces before punctuation", |s| {
            ![" .", " ,", " !", " ?"].iter().any(|bad| s.text.contains(bad))
        });
        check("opened by a capital", |s| s.text.starts_with(|c: char| c.is_uppercase()));
        check("closed by punctuation", |s| s.text.ends_with(['.', '!', '?', '"']));
        check("capitalised", |s| !has_small_start(&s.text));
        check("quoted in pairs", |s| s.text.matches('"').count() % 2 == 0);
        check("plain ASCII", |s| s.text.is_ascii());
        check("of a fitting length", |s| (40..=220).contains(&s.text.split(' ').count()));
    }

    #[test]
    fn articles_agree() {
        let vowels = ["a old ", "a elephant", "a owl", "a apple", "a umbrella", "a octopus"];
        check("right in its articles", |s| {
            !vowels.iter().any(|bad| s.text.contains(bad)) && !s.text.contains(" an b")
        });
    }

    #[test]
    fn pronouns_agree_with_the_characters() {
        for seed in 0..SAMPLE {
            let mut rng = Pcg64Mcg::seed_from_u64(seed);
            let scene = Scene::draw(&mut rng);
            let words = words(&story(seed).text);
            let wrong: &[&str] = match (scene.slot("he").as_str(), scene.slot("friend.he").as_str()) {
                ("she", "she") => &["he", "him", "his", "himself"],
                ("he", "he") => &["she", "her", "hers", "herself"],
                ("she", _) => &["himself"],
                _ => &["herself", "hers"],
            };
            for word in wrong {
                assert!(!words.contains(*word), "seed {seed} says {word}: {}", story(seed).text);
            }
        }
    }

    #[test]
    fn subjects_are_in_the_text() {
        let themes: HashSet<&str> = PLOTS.iter().map(|plot| plot.theme).collect();
        for seed in 0..SAMPLE {
            let Story { text, subjects } = story(seed);
            let known = words(&text);
            for subject in subjects.iter().filter(|subject| !themes.contains(subject.as_str())) {
                let told = words(subject)
                    .iter()
                    .all(|word| ["a", "an", "and", "named"].contains(&word.as_str()) || known.contains(word));
                assert!(told, "seed {seed} does not tell about {subject}: {text}");
            }
        }
    }

    #[test]
    fn every_wording_expands() {
        let mut rng = Pcg64Mcg::seed_from_u64(1);
        for beat in OPENING.iter().chain(PLOTS.iter().flat_map(|plot| plot.beats)).chain(ENDING) {
            for wording in beat.wordings {
                let text = expand(wording, &Scene::draw(&mut rng), &mut rng);
                assert!(text.starts_with(|c: char| c.is_uppercase() || c == '"'), "{text}");
                assert!(text.ends_with(['.', '!', '?', '"']), "{text}");
            }
        }
    }

    #[test]
    fn the_seed_decides() {
        assert_eq!(story(7), story(7));
        let distinct: HashSet<String> = (0..SAMPLE).map(|seed| story(seed).text).collect();
        assert_eq!(distinct.len() as u64, SAMPLE);
    }
}
