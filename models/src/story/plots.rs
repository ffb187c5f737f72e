//! The plots: what may happen, told in sentence templates.
//!
//! A plot is a list of beats in order; a beat is a set of wordings, of which one is taken, and the
//! chance that it is told at all. `[a|b]` in a template takes one of the parts (they nest);
//! `{slot}` is filled from the scene, with a capital when the slot's name has one. Elders are
//! never referred to by a pronoun, so "he" and "she" always mean the hero or the friend. The file is
//! long because it is one table.

/// One step of a plot.
pub(super) struct Beat {
    /// How often it is told, in percent.
    pub(super) chance: u32,
    /// Its wordings.
    pub(super) wordings: &'static [&'static str],
}

/// A plot and the words by which one may ask for it.
#[derive(Clone, Copy)]
pub(super) struct Plot {
    /// Completes "a story about …".
    pub(super) theme: &'static str,
    pub(super) beats: &'static [Beat],
}

const fn always(wordings: &'static [&'static str]) -> Beat {
    Beat { chance: 100, wordings }
}

const fn maybe(chance: u32, wordings: &'static [&'static str]) -> Beat {
    Beat { chance, wordings }
}

/// The beginning of every story.
pub(super) const OPENING: &[Beat] = &[
    always(&[
        "Once upon a time, there was {intro}.",
        "Once upon a time, there was {intro}.",
        "Once upon a time, there was {intro} who lived {home}.",
        "Once upon a time, {intro} lived {home}.",
        "There once was {intro} who loved to {hobby}.",
        "Long ago, {intro} lived {home}.",
        "There was once {intro}. {Name} lived {home}.",
        "{Home}, there lived {intro}.",
    ]),
    maybe(
        75,
        &[
            "{He} was [very|always|so] {trait}.",
            "{Name} was [very|always] {trait} and [loved|liked] to {hobby2}.",
            "{Name} [loved|liked] to {hobby2}[| with {elder}| every day| in the sun].",
            "Every [day|morning|evening], {he} liked to {hobby2}.",
            "{Name} lived with {elder}.",
            "Everyone [liked|loved] {him} because {he} was [so|very] {trait}.",
        ],
    ),
];

/// The end of every story, after the plot's own.
pub(super) const ENDING: &[Beat] = &[maybe(
    35,
    &[
        "[And|So] they lived happily ever after.",
        "It was [a very good day|the best day ever|a day to remember].",
        "That night, {name} [slept very well|went to bed with a smile|dreamed of {place.the}].",
        "The end.",
        "{Name} was [happy|very happy|proud and happy].",
        "And they all [laughed|smiled|had a big cake] together.",
    ],
)];

pub(super) const PLOTS: &[Plot] = &[
    Plot {
        theme: "losing something",
        beats: &[
            always(&[
                "{Name} had {a.thing}. {He} [loved it very much|took it everywhere|played with it every day].",
                "{His} favorite thing was {a.thing}[| from {elder}].",
            ]),
            always(&[
                "{Day}, {name} took {the.thing} to {place.the}. [But when it was time to go home|After a while], it was gone!",
                "{Day}, {name} was playing {place} when {he} saw that {the.thing} was [gone|missing].",
            ]),
            always(&[
                "\"Oh no! Where is my {noun}?\" {he} [said|cried|asked].",
                "{Name} [was very sad|began to cry|felt very sad]. \"I lost my {noun},\" {he} said.",
            ]),
            always(&[
                "{He} looked {spot}, but it was not there.",
                "{He} looked {spot}. {He} looked {spot2}. It was not there.",
            ]),
            always(&[
                "Then {name} met {friend.intro}. \"Why are you sad?\" asked {friend}. \"I cannot find my {noun},\" said {name}.",
                "{Friend.intro} [came by|saw {him}]. \"[Can I help you?|Do not cry. I will help you.]\" said {friend}.",
            ]),
            always(&[
                "They looked [everywhere|for a long time|all over {place.the}]. [At last|Then], {friend} found {the.thing} {spot3}!",
                "Together they looked [again|everywhere]. \"Look!\" said {friend}. {The.thing} was {spot3}.",
            ]),
            always(&[
                "{Name} was so happy. \"Thank you, {friend.call}!\" {he} said.",
                "{Name} [gave {friend} a big hug|jumped for joy]. \"You are a good friend,\" {he} said.",
            ]),
            maybe(
                70,
                &[
                    "From that day on, {name} and {friend} were [best|good] friends.",
                    "After that, {name} always took good care of {the.thing}.",
                ],
            ),
        ],
    },
    Plot {
        theme: "sharing",
        beats: &[
            always(&[
                "{Day}, {elder} gave {name} {a.thing}.",
                "{Day}, {name} [got|found|was given] {a.thing}. It was [so nice|wonderful|just for {him}].",
            ]),
            always(&[
                "{Name} took it to {place.the}. There {he} [met|saw] {friend.intro}.",
                "{He} went to {place.the}, where {friend.intro} was [sitting alone|looking at {him}].",
            ]),
            always(&[
                "\"[Can I have a turn|May I try it|Can we share it], please?\" asked {friend}.",
                "\"That is a nice {noun}. Will you share it with me?\" asked {friend}.",
            ]),
            maybe(
                75,
                &[
                    "\"No, it is mine!\" said {name}. {Friend} [looked sad|went away|sat down {spot}].",
                    "{Name} [held it tight and said no|did not want to share]. {Friend} was [sad|very sad].",
                ],
            ),
            always(&[
                "{Name} [thought about it|felt bad]. It was no fun to be [alone|selfish].",
                "Then {name} remembered what {elder} always said: \"[Sharing is caring|It is good to share].\"",
            ]),
            always(&[
                "{He} went to {friend} and said, \"[I am sorry. |]Let us share it.\"",
                "\"Come, {friend.call},\" {he} said. \"We can share.\"",
            ]),
            always(&[
                "{Friend} [smiled|was so happy]. They [shared it and laughed|had a lot of fun together].",
                "Now both of them were happy, and they [played|stayed together] all [day|afternoon].",
            ]),
            maybe(
                60,
                &[
                    "{Name} learned that sharing makes everything better.",
                    "From that day on, {name} always shared with {friend}.",
                ],
            ),
        ],
    },
    Plot {
        theme: "helping others",
        beats: &[
            always(&[
                "{Day}, {name} was walking {place} when {he} heard a [small|sad|little] voice.",
                "{Day}, {name} went for a walk {place}. [Suddenly|Then] {he} heard someone [crying|calling].",
            ]),
            always(&[
                "{Spot}, {he} saw a [little|small|tiny] {small}. It {trouble}.",
                "It was a [little|tiny] {small}. The poor {small} {trouble}.",
            ]),
            always(&[
                "\"[Please help me|Help|Can you help me]!\" said the {small}.",
                "\"Do not be afraid,\" said {name}. \"I will help you.\"",
            ]),
            maybe(
                40,
                &[
                    "{Name} was a little scared, but {he} wanted to help.",
                    "{Name} [thought for a moment|knew what to do].",
                ],
            ),
            always(&["{He} {rescue}.", "So {name} {rescue}."]),
            always(&[
                "\"Thank you, {call}!\" said the {small}. \"You are very kind.\"",
                "The {small} was [so happy|safe again]. \"I will never forget you,\" it said.",
            ]),
            maybe(
                60,
                &[
                    "The next day, the {small} came back and gave {name} {a.thing}.",
                    "When {name} told {elder} about it, {elder} was very proud.",
                    "After that, the {small} came to visit {him} every day.",
                ],
            ),
            maybe(
                50,
                &[
                    "{Name} learned that even small friends matter.",
                    "{Name} felt warm inside, because helping is a good thing.",
                ],
            ),
        ],
    },
    Plot {
        theme: "learning something new",
        beats: &[
            always(&[
                "{Name} wanted to learn to {skill}, but it was very hard.",
                "More than anything, {name} wanted to {skill}.",
            ]),
            always(&[
                "{Day}, {he} went to {place.the} and tried. But it did not work[|, and {he} fell down].",
                "{Day}, {he} tried and tried {place}, but {he} could not do it.",
            ]),
            always(&[
                "\"I will never learn it,\" {he} said [sadly|with a sigh].",
                "{Name} was [sad|angry|tired] and wanted to give up.",
            ]),
            always(&[
                "Then {friend.intro} came along. \"[Do not give up|Try again]! I can show you,\" said {friend}.",
                "{Friend.intro} saw {him}. \"It was hard for me, too,\" said {friend}. \"You must try again.\"",
            ]),
            always(&[
                "[They practiced every day|Every day, they practiced together]. {Name} got better and better.",
                "{Name} took a deep breath and tried again. {Friend} helped {him}.",
            ]),
            always(&[
                "At last, {he} could {skill}! \"[I did it|Look at me]!\" {he} [shouted|cried].",
                "And then it worked! {Name} could {skill} all by {self}.",
            ]),
            always(&[
                "\"I knew you could do it,\" said {friend}.",
                "{Elder} [was very proud|clapped and cheered]. \"[Well done|Good job], {call}!\"",
            ]),
            maybe(
                50,
                &[
                    "{Name} learned that you should never give up.",
                    "From then on, {he} was never afraid to try new things.",
                ],
            ),
        ],
    },
    Plot {
        theme: "being brave",
        beats: &[
            always(&[
                "But there was one problem: {name} was afraid of {fear}.",
                "{Name} was [very|always] afraid of {fear}.",
            ]),
            always(&[
                "{Day}, {his} friend {friend.full} called for help {place}.",
                "{Day}, {he} and {his} friend {friend.full} were playing {place}. Suddenly {friend} [was gone|called for help].",
            ]),
            always(&[
                "\"[Help! I am stuck|Please help me|Where are you]!\" called {friend}.",
                "{Name} could hear {friend} calling from far away.",
            ]),
            always(&[
                "{Name} was [scared|shaking], because {he} had to face {fear}. But {he} did not want to leave {friend} alone.",
                "{Name} thought of {fear} and {his} heart beat fast. \"I must be brave,\" {he} said.",
            ]),
            always(&[
                "{He} closed {his} eyes, counted to three and went on. [Soon|At last] {he} found {friend} {spot}.",
                "Step by step, {he} went on. There was {friend}, {spot}!",
            ]),
            always(&[
                "\"You came!\" said {friend}. \"You are so brave!\"",
                "{Friend} hugged {him}. \"Thank you for helping me,\" said {friend}.",
            ]),
            always(&[
                "From that day on, {name} was not afraid of {fear} anymore.",
                "{Name} smiled. {He} was still a little afraid of {fear}, but now {he} knew that {he} could be brave.",
            ]),
        ],
    },
    Plot {
        theme: "the rain",
        beats: &[
            always(&[
                "{Day}, {name} and {his} friend {friend.full} were [playing|walking] {place}.",
                "{Day}, {name} went to {place.the} with {a.thing}. There {he} met {friend.intro}.",
            ]),
            always(&[
                "Suddenly, dark clouds came and it began to rain.",
                "[Then|Suddenly] the sky turned gray, and big drops of rain fell down.",
            ]),
            always(&[
                "\"[Oh no|Oh dear]! We are getting wet!\" said {friend}.",
                "\"We must find a dry place,\" said {name}.",
            ]),
            always(&[
                "They ran and hid {spot}. [They waited and listened to the rain|It was cold, so they sat close together].",
                "{Name} saw a dry spot {spot}. \"Come here!\" {he} called, and they sat down together.",
            ]),
            always(&[
                "To pass the time, {name} [told a funny story|sang a song|made up a game], and {friend} laughed.",
                "{Friend} was [scared|cold|sad]. \"Do not worry,\" said {name}. \"The rain will stop soon.\"",
            ]),
            always(&[
                "[After a while|At last], the sun came out. There was a big rainbow in the sky!",
                "Then the rain stopped. \"Look, a rainbow!\" said {friend}.",
            ]),
            always(&[
                "They jumped in the puddles [until it was dark|and laughed].",
                "\"The rain was not so bad after all,\" said {name}.",
            ]),
        ],
    },
    Plot {
        theme: "a garden",
        beats: &[
            always(&[
                "{Day}, {name} found a [tiny|small|strange] seed {spot}.",
                "{Day}, {elder} gave {name} a [tiny|small|strange] seed.",
            ]),
            always(&[
                "{He} put it in the ground and gave it some water. [Then {he} waited|\"Please grow,\" {he} said].",
                "\"What will it be?\" {he} asked. {He} planted it {place}.",
            ]),
            always(&[
                "[The first day|On the first day], nothing happened. [The next day|On the second day], nothing happened.",
                "Every [day|morning], {he} [looked at|watered] the seed, but nothing came up.",
            ]),
            always(&[
                "\"Maybe it is a bad seed,\" said {friend.intro}. But {name} did not give up.",
                "{Name} was sad. \"You must be patient,\" said {elder}.",
            ]),
            always(&[
                "Then, one morning, there was a [little|tiny] green leaf!",
                "After many days, a [small|little] plant came out of the ground.",
            ]),
            always(&[
                "It grew and grew until it was a [big|beautiful|tall] [flower|apple tree|sunflower|pumpkin].",
                "It grew taller than {name}, and it was full of [red apples|pretty flowers|sweet berries].",
            ]),
            always(&[
                "{Name} was so proud that {he} showed it to everyone.",
                "{Name} shared it with all {his} friends.",
            ]),
            maybe(
                60,
                &[
                    "{He} learned that good things take time.",
                    "\"See,\" said {elder}, \"good things need time.\"",
                ],
            ),
        ],
    },
    Plot {
        theme: "telling the truth",
        beats: &[
            always(&[
                "{Day}, {name} was playing with {a.thing}. [Crash|Oops]! {Elder} had a pretty vase, and now it was broken.",
                "{Elder} had {a.thing}. {Day}, {name} took it without asking, and it broke.",
            ]),
            always(&[
                "{Name} was scared. {He} [hid the pieces {spot}|wanted to run away|did not know what to do].",
                "\"Oh no! What shall I do?\" {he} said.",
            ]),
            always(&[
                "\"You can hide it,\" said {friend.intro}. But {name} shook {his} head.",
                "{His} friend {friend.full} said, \"You should tell the truth.\"",
                "{He} felt bad [all day|inside] and could not [eat|play|sleep].",
            ]),
            always(&[
                "So {name} went to {elder}. \"I am sorry,\" {he} said. \"I broke it.\"",
                "At last {he} said, \"{Elder.call}, it was me. I am very sorry.\"",
            ]),
            always(&[
                "{Elder} was not angry. \"Thank you for telling the truth,\" said {elder}.",
                "{Elder} smiled and [hugged {him}|gave {him} a hug]. \"I am glad that you told me.\"",
            ]),
            maybe(
                80,
                &[
                    "Together they [fixed it with glue|cleaned up|made a new one].",
                    "After that, {name} was always careful.",
                ],
            ),
            maybe(
                70,
                &[
                    "{Name} learned that it is best to tell the truth.",
                    "{Name} felt much better, because {he} had been honest.",
                ],
            ),
        ],
    },
    Plot {
        theme: "a birthday",
        beats: &[
            always(&[
                "{Day}, it was {friend.pos} birthday. {Friend.full} was {name.pos} best friend.",
                "{Name} had a friend, {friend.full}. {Day}, it was {friend.pos} birthday.",
            ]),
            always(&[
                "{Name} wanted to give {friend} [something special|a present], but {he} had no money.",
                "\"What can I give to {friend}?\" thought {name}.",
            ]),
            always(&[
                "{He} went to {place.the} to look for a present. {Spot}, {he} found {a.thing}.",
                "{Elder} had an idea. \"[You can make|Let us make] {a.food},\" said {elder}.",
                "{He} thought and thought. Then {he} made {a.thing} all by {self}.",
            ]),
            always(&[
                "{He} put it in a box with a [red|blue|yellow] ribbon and went to {friend.pos} house.",
                "All the friends came and hid {spot}. They waited and were very quiet.",
            ]),
            always(&[
                "\"[Surprise|Happy birthday], {friend.call}!\" {he} [said|shouted].",
                "When {friend} came, {name} shouted, \"[Happy birthday|Surprise]!\"",
            ]),
            always(&[
                "{Friend} [was so happy|could not believe it]. \"This is the best present ever!\"",
                "{Friend} smiled [a big smile|from ear to ear]. \"Thank you, {call}! I love it!\"",
            ]),
            always(&[
                "Then they [ate cake|danced|played games] and [sang songs|laughed] until it was dark.",
                "{Name} was happy, too, because giving is as nice as getting.",
            ]),
        ],
    },
    Plot {
        theme: "making a friend",
        beats: &[
            always(&[
                "But {name} was [lonely|sad], because {he} had no one to play with.",
                "{Name} wished for a friend.",
            ]),
            always(&[
                "{Day}, {he} went to {place.the}. There {he} saw {friend.intro} [with {a.thing}|sitting {spot}].",
                "{Day}, {friend.intro} came to {place.the}. {Friend} had {a.thing}.",
            ]),
            always(&[
                "{Name} was too shy to speak. {He} hid {spot2}.",
                "{Name} wanted to say hello, but {he} was [shy|a little afraid].",
            ]),
            always(&[
                "Then {friend} [smiled|waved] at {him}. \"[Do you want|Would you like] to play with me?\" asked {friend}.",
                "\"Hello,\" said {friend}. \"Do you want to play with me?\"",
            ]),
            always(&[
                "\"Yes, please!\" said {name}. They [played|ran and jumped] all [day|morning|afternoon].",
                "{Name} nodded. Soon they were [laughing|singing|playing] together {place}.",
            ]),
            always(&[
                "When the sun went down, {friend} said, \"[Will you come again tomorrow|Can we play again tomorrow]?\" \"Of course!\" said {name}.",
                "\"You are my best friend,\" said {friend} at the end of the day.",
            ]),
            always(&[
                "From then on, {name} was never lonely again.",
                "{Name} ran home and told {elder}, \"I have a friend!\"",
            ]),
        ],
    },
    Plot {
        theme: "getting lost",
        beats: &[
            always(&[
                "{Day}, {name} saw a [pretty|yellow|blue] butterfly and ran after it. {He} ran and ran[| until {he} was far from home].",
                "{Day}, {name} went for a walk {place}. {He} walked too far.",
                "\"Do not go too far,\" said {elder}. But {day}, {name} did not listen.",
            ]),
            always(&[
                "Soon {he} did not know where {he} was. \"I am lost!\" {he} [cried|said].",
                "When {he} looked around, nothing looked the same. \"How do I get home?\" {he} asked.",
            ]),
            maybe(
                60,
                &[
                    "It was getting dark, and {name} was [cold|hungry|scared].",
                    "{He} sat down {spot} and began to cry.",
                ],
            ),
            always(&[
                "Then {name} saw {friend.intro}. \"[Are you lost|Why are you crying]?\" asked {friend}.",
                "Just then, {friend.intro} came by. \"What is wrong?\" asked {friend}.",
            ]),
            always(&[
                "\"I want to go home,\" said {name}. \"[Come with me|Follow me]. I know the way,\" said {friend}.",
                "\"I cannot find my way,\" said {name}. {Friend} said, \"I will take you home.\"",
            ]),
            always(&[
                "They walked [past the river and over the hill|through the trees|for a long time], and there was {name.pos} home!",
                "{Friend} had {a.thing}, and it helped them to find the way. Soon they saw {name.pos} home.",
            ]),
            always(&[
                "{Elder} was [so happy|waiting at the door]. \"I was so worried!\"",
                "{Elder} hugged {him} and gave {friend} [some warm soup|{a.food}] to say thank you.",
            ]),
            maybe(
                60,
                &["{Name} never went too far again.", "{Name} promised to [listen|be careful] from then on."],
            ),
        ],
    },
    Plot {
        theme: "cooking",
        beats: &[
            always(&[
                "{Day}, {name} wanted to make {a.food} for {elder}.",
                "{Day}, {name} was hungry. \"Let us make {a.food},\" said {elder}.",
            ]),
            always(&[
                "But there was no [flour|sugar|butter|salt] in the kitchen. So {he} went to {place.the} to ask for some.",
                "{He} needed some [milk|honey|butter], so {he} took {a.thing} and went to {place.the}.",
            ]),
            always(&[
                "On the way, {he} met {friend.intro}. \"Where are you going?\" asked {friend}. \"I am making {a.food},\" said {name}.",
                "There {he} met {friend.intro}, who said, \"I can give you some if I may help.\"",
            ]),
            always(&[
                "They went home together. They mixed and stirred and [laughed|sang].",
                "\"Can I help you?\" asked {friend}. So they cooked it together.",
            ]),
            maybe(
                60,
                &[
                    "It was a big mess, but they did not mind.",
                    "Soon the whole house smelled [good|sweet|wonderful].",
                ],
            ),
            always(&[
                "When it was ready, everyone had [a taste|some]. \"[Yum|Mmm]! This is the best {food} ever,\" said {elder}.",
                "{Elder} tasted it and smiled. \"It is delicious!\"",
            ]),
            always(&[
                "{Name} and {friend} were [proud|happy and full].",
                "\"It is good because we made it together,\" said {name}.",
            ]),
        ],
    },
    Plot {
        theme: "being honest",
        beats: &[
            always(&[
                "{Day}, {name} found {a.thing} {spot} {place}.",
                "{Day}, {name} was walking {place}. {Spot}, {he} saw {a.thing}.",
            ]),
            always(&[
                "\"[How pretty|What a nice {noun}]! I want to keep it,\" {he} said.",
                "{He} picked it up. \"Whose {noun} is this?\" {he} asked.",
            ]),
            always(&[
                "Then {he} saw {friend.intro}. {Friend} was [crying|looking for something].",
                "On the way home, {name} met {friend.intro}, who looked very sad.",
            ]),
            always(&[
                "\"I lost my {noun},\" said {friend}. \"[It was a gift|I cannot find it anywhere].\"",
                "\"What is wrong?\" asked {name}. \"My {noun} is gone,\" said {friend}.",
            ]),
            always(&[
                "{Name} looked at {the.thing}. {He} wanted to keep it, but it was not {hers}.",
                "{Name} knew what was right.",
            ]),
            always(&[
                "\"Here it is,\" said {name} and gave {the.thing} to {friend}.",
                "\"Is this your {noun}?\" {he} asked. \"Yes!\" cried {friend}. \"[Thank you|You found it]!\"",
            ]),
            always(&[
                "{Friend} was so happy that {friend.he} [danced|hugged {name}|gave {name} {a.food}].",
                "\"You are very honest, {call},\" said {friend}. \"Let us be friends.\"",
            ]),
            maybe(
                50,
                &["{Name} was glad that {he} had given it back.", "They played with {the.thing} together."],
            ),
        ],
    },
    Plot {
        theme: "a race",
        beats: &[
            always(&[
                "{Day}, there was a big race {place}. {Name} and {friend.intro} wanted to win {a.thing}.",
                "{Day}, {name} and {friend.intro} had a race. The winner would get {a.thing}.",
            ]),
            always(&[
                "\"I am the fastest,\" said {friend}. {Name} said nothing.",
                "\"[Ready, set, go|One, two, three, go]!\" said {elder}, and they ran.",
            ]),
            always(&[
                "{Name} ran as fast as {he} could. {Friend} was right behind {him}.",
                "{Friend} was fast, but {name} was fast, too.",
            ]),
            always(&[
                "Suddenly, {friend} fell [down|over a stone] and hurt {friend.his} leg.",
                "Then {name} heard a cry. {Friend} had fallen {spot}!",
            ]),
            always(&[
                "{Name} stopped. {He} could win now, but {he} went back to help {friend}.",
                "{Name} turned around. \"Are you hurt?\" {he} asked and helped {friend} to stand up.",
            ]),
            always(&[
                "They [walked|went] to the end together. Everyone [clapped|cheered] for them.",
                "\"You could have won,\" said {friend}. \"A friend is better than a prize,\" said {name}.",
            ]),
            always(&[
                "In the end, both of them got {the.thing}.",
                "{Friend} smiled and said, \"You are the real winner, {call}.\"",
            ]),
        ],
    },
    Plot {
        theme: "a wish",
        beats: &[
            always(&[
                "{Day}, {name} saw a bright light {place}. {Spot}, there was {a.thing}.",
                "{Day}, {name} found {a.thing} {spot}. It [glowed|was warm and bright].",
            ]),
            always(&[
                "\"I am magic,\" it said. \"You may make one wish.\"",
                "When {he} touched it, a soft voice said, \"You have one wish.\"",
            ]),
            always(&[
                "{Name} thought about [toys|a mountain of cake|gold]. {He} thought for a long time.",
                "\"I could wish for [gold|a hundred toys|a big cake],\" said {name}.",
            ]),
            always(&[
                "Then {he} saw {friend.intro}, who was [sick|very sad|cold and hungry].",
                "But {his} friend {friend.full} was [sick|very sad|all alone].",
            ]),
            always(&[
                "\"I wish that {friend} will be [well and happy|happy again],\" said {name}.",
                "{Name} knew what to do. \"I wish for {friend} to be happy,\" {he} said.",
            ]),
            always(&[
                "There was a flash of light, and {friend} began to [smile|laugh|dance]!",
                "The magic worked! {Friend} jumped up and [smiled|sang].",
            ]),
            always(&[
                "\"You are the kindest {kind} in the world,\" said {friend}.",
                "{Name} had no gold, but {he} had a friend, and that was much better.",
            ]),
        ],
    },
];
