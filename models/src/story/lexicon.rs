//! The words that stories are made of: who, where, what and how somebody feels.
//!
//! Only tables. Which of them go together is decided by `scene`, and how they become sentences
//! by `plots`. Every thing is singular, so that "it" always agrees.

/// What sort of being a character is; it decides the home and the elder it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    /// A child.
    Child,
    /// A prince or a queen, for instance.
    Royal,
    /// An animal, named or not.
    Animal,
    /// A creature of fairy tales.
    Magic,
    /// A robot: it has a maker, not a mother.
    Machine,
}

/// A kind of character: its noun, its group, and its gender where the noun decides it.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    pub(super) noun: &'static str,
    pub(super) group: Group,
    pub(super) female: Option<bool>,
}

const fn kind(noun: &'static str, group: Group, female: Option<bool>) -> Kind {
    Kind { noun, group, female }
}

pub(super) const KINDS: &[Kind] = &[
    // Children come more than once because they are the most common heroes.
    kind("girl", Group::Child, Some(true)),
    kind("boy", Group::Child, Some(false)),
    kind("girl", Group::Child, Some(true)),
    kind("boy", Group::Child, Some(false)),
    kind("girl", Group::Child, Some(true)),
    kind("boy", Group::Child, Some(false)),
    kind("princess", Group::Royal, Some(true)),
    kind("prince", Group::Royal, Some(false)),
    kind("queen", Group::Royal, Some(true)),
    kind("king", Group::Royal, Some(false)),
    kind("cat", Group::Animal, None),
    kind("dog", Group::Animal, None),
    kind("rabbit", Group::Animal, None),
    kind("bear", Group::Animal, None),
    kind("mouse", Group::Animal, None),
    kind("fox", Group::Animal, None),
    kind("frog", Group::Animal, None),
    kind("duck", Group::Animal, None),
    kind("bird", Group::Animal, None),
    kind("owl", Group::Animal, None),
    kind("turtle", Group::Animal, None),
    kind("squirrel", Group::Animal, None),
    kind("pig", Group::Animal, None),
    kind("lamb", Group::Animal, None),
    kind("pony", Group::Animal, None),
    kind("goat", Group::Animal, None),
    kind("hedgehog", Group::Animal, None),
    kind("elephant", Group::Animal, None),
    kind("lion", Group::Animal, None),
    kind("tiger", Group::Animal, None),
    kind("monkey", Group::Animal, None),
    kind("penguin", Group::Animal, None),
    kind("kitten", Group::Animal, None),
    kind("puppy", Group::Animal, None),
    kind("wolf", Group::Animal, None),
    kind("bee", Group::Animal, None),
    kind("dragon", Group::Magic, None),
    kind("unicorn", Group::Magic, None),
    kind("fairy", Group::Magic, Some(true)),
    kind("wizard", Group::Magic, Some(false)),
    kind("giant", Group::Magic, Some(false)),
    kind("robot", Group::Machine, None),
];

pub(super) const GIRLS: &[&str] = &[
    "Lily", "Mia", "Anna", "Sara", "Lucy", "Emma", "Rosa", "Nina", "Ella", "Zoe", "Molly", "Daisy", "Ruby",
    "Ivy", "Clara", "Maya", "Amy", "Lola", "Eva", "Hana", "Sue", "Jane",
];
pub(super) const BOYS: &[&str] = &[
    "Tom", "Ben", "Max", "Sam", "Leo", "Tim", "Jack", "Finn", "Noah", "Oscar", "Adam", "Hugo", "Luis",
    "Omar", "Peter", "Theo", "Felix", "Milo", "Kai", "Paul", "Bob", "John",
];
/// Names of animals and creatures, female and male.
pub(super) const PET_GIRLS: &[&str] =
    &["Coco", "Bella", "Mimi", "Pearl", "Honey", "Poppy", "Luna", "Fern", "Dot", "Willow", "Cleo", "Pippa"];
pub(super) const PET_BOYS: &[&str] = &[
    "Pip", "Rusty", "Bruno", "Fuzzy", "Biscuit", "Toby", "Rocky", "Spot", "Buddy", "Nibbles", "Ziggy", "Bolt",
];

pub(super) const LOOKS: &[&str] = &[
    "little", "little", "little", "small", "young", "happy", "clever", "kind", "shy", "curious", "funny",
    "brave", "gentle",
];
pub(super) const TRAITS: &[&str] = &[
    "kind", "curious", "brave", "shy", "clever", "cheerful", "playful", "gentle", "quiet", "friendly",
    "funny", "busy", "helpful", "polite",
];

/// Homes by group, each after "lived".
pub(super) fn homes(group: Group) -> &'static [&'static str] {
    match group {
        Group::Child => &[
            "in a small house",
            "in a little town",
            "in a village by the sea",
            "in a big city",
            "on a farm",
            "near a forest",
            "in a house on a hill",
        ],
        Group::Royal => &["in a big castle", "in a castle on a hill", "in a golden palace"],
        Group::Animal => &[
            "in a big forest",
            "on a farm",
            "near a river",
            "in a green meadow",
            "in a cozy house",
            "in the garden of an old house",
            "under a tall tree",
        ],
        Group::Magic => &["in a deep forest", "high up in the mountains", "in a cave", "far, far away"],
        Group::Machine => &["in a big city", "in a small workshop", "in a toy shop"],
    }
}

/// Elders by group: how the story names them after "his" or "her" (or after nothing), and how they are
/// called in speech.
pub(super) fn elders(group: Group) -> &'static [(&'static str, &'static str)] {
    match group {
        Group::Child => &[
            ("{his} mom", "Mom"),
            ("{his} dad", "Dad"),
            ("{his} grandma", "Grandma"),
            ("{his} grandpa", "Grandpa"),
            ("{his} mother", "Mother"),
            ("{his} father", "Father"),
        ],
        Group::Royal => &[("the old cook", "dear cook"), ("{his} grandmother", "Grandmother")],
        Group::Animal | Group::Magic => &[
            ("{his} mother", "Mother"),
            ("{his} father", "Father"),
            ("{his} mom", "Mom"),
            ("{his} grandpa", "Grandpa"),
        ],
        Group::Machine => &[("the old toy maker", "toy maker"), ("the inventor", "my friend")],
    }
}

/// Places: preposition of being there, and the noun.
pub(super) const PLACES: &[(&str, &str)] = &[
    ("in", "park"),
    ("in", "forest"),
    ("in", "garden"),
    ("in", "meadow"),
    ("in", "village"),
    ("in", "woods"),
    ("on", "beach"),
    ("on", "hill"),
    ("on", "farm"),
    ("by", "lake"),
    ("by", "river"),
    ("by", "sea"),
    ("by", "pond"),
    ("at", "market"),
    ("at", "playground"),
    ("in", "field"),
    ("in", "jungle"),
    ("in", "valley"),
    ("on", "mountain"),
    ("by", "old mill"),
    ("by", "castle"),
];

pub(super) const ADJECTIVES: &[&str] = &[
    "red", "blue", "green", "yellow", "pink", "shiny", "pretty", "old", "new", "tiny", "big", "golden",
    "special", "purple", "white",
];
pub(super) const THINGS: &[&str] = &[
    "ball",
    "kite",
    "hat",
    "book",
    "drum",
    "boat",
    "doll",
    "scarf",
    "bell",
    "lantern",
    "box",
    "key",
    "ring",
    "stone",
    "shell",
    "cup",
    "blanket",
    "balloon",
    "basket",
    "flute",
    "umbrella",
    "map",
    "coin",
    "button",
    "flower",
    "feather",
    "whistle",
    "teddy bear",
    "lamp",
    "mirror",
    "crown",
    "ribbon",
    "pencil",
    "puzzle",
    "bucket",
    "car",
    "train",
    "bike",
    "truck",
    "star",
];
pub(super) const FOODS: &[&str] = &[
    "cake",
    "apple pie",
    "loaf of bread",
    "pot of soup",
    "cookie",
    "pizza",
    "pancake",
    "sandwich",
    "bowl of berries",
    "jar of honey",
    "muffin",
    "pear",
];

/// Where a thing may lie or somebody may hide.
pub(super) const SPOTS: &[&str] = &[
    "under a big tree",
    "behind a rock",
    "in the tall grass",
    "next to an old bench",
    "under a bush",
    "between two stones",
    "inside a hollow log",
    "behind a fence",
    "near the water",
    "beside a pile of leaves",
    "beside a wooden gate",
];
pub(super) const HOBBIES: &[&str] = &[
    "sing",
    "dance",
    "read books",
    "play outside",
    "draw pictures",
    "run in the grass",
    "look at the stars",
    "tell jokes",
    "pick flowers",
    "climb trees",
    "listen to stories",
    "play games",
    "jump in puddles",
    "collect stones",
    "help others",
    "explore",
    "count the clouds",
];
/// What can be learnt, after "to".
pub(super) const SKILLS: &[&str] = &[
    "swim",
    "ride a bike",
    "climb a tree",
    "sing a song",
    "dance",
    "whistle",
    "fly a kite",
    "paint a picture",
    "read",
    "count to ten",
    "skate",
    "play the drum",
    "tie a knot",
    "catch a ball",
    "jump over the stream",
    "bake bread",
    "juggle",
];
pub(super) const FEARS: &[&str] = &[
    "the dark",
    "thunder",
    "deep water",
    "loud noises",
    "high places",
    "the old bridge",
    "the big cave",
    "storms",
    "shadows",
    "the tall slide",
];
pub(super) const DAYS: &[&str] = &[
    "one day",
    "one day",
    "one day",
    "one day",
    "one sunny day",
    "one sunny morning",
    "one morning",
    "one afternoon",
    "one windy day",
    "one warm afternoon",
    "one cold morning",
    "one quiet evening",
    "one rainy day",
    "one summer day",
    "one spring morning",
];

/// Somebody small in trouble: who, the trouble, and what the hero does about it.
pub(super) const TROUBLES: &[(&str, &str, &str)] = &[
    ("bird", "had fallen out of its nest", "carefully put it back into the nest"),
    ("turtle", "was stuck on its back", "gently turned it over"),
    ("bee", "had fallen into the water", "held out a leaf so that it could climb up"),
    ("mouse", "was caught in a net", "pulled at the net until there was a big hole"),
    ("butterfly", "was caught in a web", "softly set it free"),
    ("duckling", "could not find its mother", "walked with it to the pond, where its mother was waiting"),
    ("lamb", "was stuck in the mud", "pulled and pulled until it was free"),
    ("kitten", "could not get down from a tree", "found a ladder and brought it down"),
    ("snail", "was in the middle of the road", "carried it to the soft grass"),
    ("fish", "was lying on the sand", "quickly put it back into the water"),
    ("puppy", "had a thorn in its paw", "pulled out the thorn"),
    ("squirrel", "had nothing to eat", "gave it a handful of nuts"),
];
