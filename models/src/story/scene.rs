//! Who and what one story is about: drawn once, then the same through the whole story.
//!
//! It answers the slots of the templates and the questions of the chat ("what may somebody have
//! asked for, to get this story?"). It makes no sentences.

use super::lexicon::*;
use rand::Rng;
use rand::seq::IndexedRandom;

/// A character with everything that sentences need to speak of it.
pub(super) struct Character {
    /// The noun: "cat".
    pub(super) kind: &'static str,
    /// The proper name; about one animal in four has none.
    pub(super) name: Option<&'static str>,
    /// How a sentence names it: "Lily", or "the cat".
    pub(super) mention: String,
    /// How it is introduced: "a little cat named Mimi".
    intro: String,
    female: bool,
    group: Group,
}

impl Character {
    /// Draws a character whose kind is none of `not`.
    fn draw(rng: &mut impl Rng, not: Option<&str>) -> Self {
        let kind = loop {
            let kind = pick(rng, KINDS);
            if Some(kind.noun) != not {
                break kind;
            }
        };
        let female = kind.female.unwrap_or_else(|| rng.random_bool(0.5));
        let human = matches!(kind.group, Group::Child | Group::Royal);
        let names = match (human || rng.random_bool(0.3), female) {
            (true, true) => GIRLS,
            (true, false) => BOYS,
            (false, true) => PET_GIRLS,
            (false, false) => PET_BOYS,
        };
        let name = (human || rng.random_bool(0.75)).then(|| pick(rng, names));
        let noun = match rng.random_bool(0.75) {
            true => format!("{} {}", pick(rng, LOOKS), kind.noun),
            false => kind.noun.to_owned(),
        };
        let intro = match name {
            Some(name) if rng.random_bool(0.8) => format!("{} named {name}", with_article(&noun)),
            Some(name) => format!("{} called {name}", with_article(&noun)),
            None => with_article(&noun),
        };
        let mention = name.map_or_else(|| format!("the {}", kind.noun), str::to_owned);
        Self { kind: kind.noun, name, mention, intro, female, group: kind.group }
    }

    fn pronoun(&self, female: &'static str, male: &'static str) -> String {
        if self.female { female } else { male }.to_owned()
    }

    /// The value of a slot that speaks of a character, by the slot's last word.
    fn slot(&self, word: &str) -> Option<String> {
        Some(match word {
            "name" => self.mention.clone(),
            "intro" => self.intro.clone(),
            "kind" => self.kind.to_owned(),
            "pos" => format!("{}'s", self.mention),
            "he" => self.pronoun("she", "he"),
            "him" => self.pronoun("her", "him"),
            "his" => self.pronoun("her", "his"),
            "hers" => self.pronoun("hers", "his"),
            "self" => self.pronoun("herself", "himself"),
            "call" => self.name.map_or_else(|| format!("little {}", self.kind), str::to_owned),
            "full" => match (self.name, self.group) {
                (Some(name), Group::Child) => name.to_owned(),
                (Some(name), _) => format!("{name} the {}", self.kind),
                (None, _) => self.mention.clone(),
            },
            _ => return None,
        })
    }
}

/// A thing with its look: "red", "ball".
#[derive(Clone, Copy)]
pub(super) struct Thing {
    look: &'static str,
    pub(super) noun: &'static str,
}

impl Thing {
    /// "red ball"
    pub(super) fn phrase(&self) -> String {
        format!("{} {}", self.look, self.noun)
    }
}

/// The facts of one story.
pub(super) struct Scene {
    pub(super) hero: Character,
    pub(super) friend: Character,
    /// What the story turns on.
    pub(super) thing: Thing,
    elder: (String, &'static str),
    place: (&'static str, &'static str),
    home: &'static str,
    spots: [&'static str; 3],
    trouble: (&'static str, &'static str, &'static str),
    character_trait: &'static str,
    hobbies: [&'static str; 2],
    skill: &'static str,
    fear: &'static str,
    food: &'static str,
    day: &'static str,
}

impl Scene {
    pub(super) fn draw(rng: &mut impl Rng) -> Self {
        let hero = Character::draw(rng, None);
        let friend = loop {
            let friend = Character::draw(rng, Some(hero.kind));
            if friend.mention != hero.mention {
                break friend;
            }
        };
        let (elder, call) = pick(rng, elders(hero.group));
        let his = hero.pronoun("her", "his");
        let trouble = loop {
            let trouble = pick(rng, TROUBLES);
            if trouble.0 != hero.kind {
                break trouble;
            }
        };
        Self {
            thing: Thing { look: pick(rng, ADJECTIVES), noun: pick(rng, THINGS) },
            elder: (elder.replace("{his}", &his), call),
            place: pick(rng, PLACES),
            home: pick(rng, homes(hero.group)),
            spots: pick_distinct(rng, SPOTS),
            trouble,
            character_trait: pick(rng, TRAITS),
            hobbies: pick_distinct(rng, HOBBIES),
            skill: pick(rng, SKILLS),
            fear: pick(rng, FEARS),
            food: pick(rng, FOODS),
            day: pick(rng, DAYS),
            hero,
            friend,
        }
    }

    /// The place's noun: "park".
    pub(super) fn place(&self) -> &'static str {
        self.place.1
    }

    /// The value of the slot `key`, which begins with a capital when the key does.
    ///
    /// # Panics
    /// When there is no such slot: a mistake in the tables of this crate, which a test finds.
    pub(super) fn slot(&self, key: &str) -> String {
        let lower = key.to_ascii_lowercase();
        let value = match lower.as_str() {
            "friend" => self.friend.mention.clone(),
            "elder" => self.elder.0.clone(),
            "elder.call" => self.elder.1.to_owned(),
            "a.thing" => with_article(&self.thing.phrase()),
            "the.thing" => format!("the {}", self.thing.phrase()),
            "noun" => self.thing.noun.to_owned(),
            "place" => format!("{} the {}", self.place.0, self.place.1),
            "place.the" => format!("the {}", self.place.1),
            "home" => self.home.to_owned(),
            "spot" => self.spots[0].to_owned(),
            "spot2" => self.spots[1].to_owned(),
            "spot3" => self.spots[2].to_owned(),
            "small" => self.trouble.0.to_owned(),
            "trouble" => self.trouble.1.to_owned(),
            "rescue" => self.trouble.2.to_owned(),
            "trait" => self.character_trait.to_owned(),
            "hobby" => self.hobbies[0].to_owned(),
            "hobby2" => self.hobbies[1].to_owned(),
            "skill" => self.skill.to_owned(),
            "fear" => self.fear.to_owned(),
            "a.food" => with_article(self.food),
            "food" => self.food.to_owned(),
            "day" => self.day.to_owned(),
            of_character => {
                let (who, word) = match of_character.split_once('.') {
                    Some(("friend", word)) => (&self.friend, word),
                    Some(("name", word)) => (&self.hero, word),
                    _ => (&self.hero, of_character),
                };
                who.slot(word).unwrap_or_else(|| panic!("no slot {{{key}}} in a story's scene"))
            }
        };
        if key.starts_with(|first: char| first.is_ascii_uppercase()) { capitalise(&value) } else { value }
    }
}

/// "an old map", "a red ball".
pub(super) fn with_article(noun: &str) -> String {
    let vowel = noun.starts_with(['a', 'e', 'i', 'o']) || noun.starts_with("umbrella");
    format!("{} {noun}", if vowel { "an" } else { "a" })
}

/// The text with its first letter as a capital.
pub(super) fn capitalise(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// One of a table's rows.
pub(crate) fn pick<T: Copy>(rng: &mut impl Rng, table: &[T]) -> T {
    table[rng.random_range(0..table.len())]
}

/// `N` different rows of a table.
fn pick_distinct<const N: usize>(rng: &mut impl Rng, table: &[&'static str]) -> [&'static str; N] {
    let mut rows = table.choose_multiple(rng, N);
    std::array::from_fn(|_| *rows.next().expect("the table has more rows than are drawn"))
}
