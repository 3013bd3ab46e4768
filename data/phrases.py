"""The sentences Pennywhistle's stories are told in, all written for this village.

Placeholders: H the hero, F the friend (names); {he} {his} {him} and {fhe} {fhis} {fhim} their pronouns;
{Hjob} {Fjob}; {Hpet} "Button the goose"; {Fpet}; {Ffood} the friend's favourite; {a_thing} {thing}.
"""

OPENINGS = (
    "One windy morning {H} the {Hjob} found {a_thing} {where}.",
    "On market day {H} the {Hjob} bought {a_thing} for two eggs and a joke.",
    "{H} the {Hjob} had {a_thing} that nobody else wanted.",
    "A passing pedlar gave {H} the {Hjob} {a_thing}.",
    "When the clock struck six minutes late, {H} the {Hjob} tripped over {a_thing} {where}.",
    "{H} the {Hjob} won {a_thing} at the turnip fair.",
    "For {his} birthday {H} the {Hjob} got {a_thing} with a crooked ribbon.",
    "{Hpet} came home one day dragging {a_thing}, and {H} cleaned it up.",
    "Deep in a cupboard {H} the {Hjob} discovered {a_thing}.",
    "Early one spring {H} the {Hjob} traded a cabbage for {a_thing}.",
)
WHERES = ("under the bridge", "on the village green", "behind the inn", "in the long grass", "beside the well",
          "at the edge of the wood", "on the school steps", "among the pears", "by the river Dawdle")  # fmt: skip

# For each thing, troubles and the rescue that answers each: what was introduced matters later.
PLOTS: dict[str, tuple[tuple[str, str], ...]] = {
    "lantern": (
        ("That evening a thick fog came down, and {F} could not find the bridge.",
         "{H} held up the lantern, and its light led {F} safely home."),
        ("After dark {F} lost a shoe in the orchard and dared not move.",
         "By the glow of the lantern {H} found the shoe in a pear tree."),
        ("At night strange noises came from {F}'s cellar.",
         "In the light of the lantern they saw that it was only {Fpet}, snoring."),
    ),
    "rope": (
        ("That noon {F}'s boat slipped loose and drifted down the Dawdle.",
         "{H} threw the rope and pulled the boat back to the bank."),
        ("Then {Fpet} slid into the dry well and complained loudly.",
         "{H} let down the rope and pulled until a cross little face came up."),
        ("A storm was about to carry off {F}'s roof.",
         "With the rope {H} tied the roof to the sneezing king, and it held."),
    ),
    "umbrella": (
        ("Just then the sky opened over {F}'s picnic.",
         "{H} put up the umbrella and kept every crumb dry."),
        ("Rain dripped through the ceiling onto {F}'s bed.",
         "All night {H} held the umbrella over {F}, who slept on, quite dry."),
        ("Hail the size of peas began to bounce off {Fpet}.",
         "Under the umbrella there was shelter for three, and {H} made room."),
    ),
    "whistle": (
        ("That day {Fpet} ran off, and {F} looked everywhere in vain.",
         "{H} blew the whistle, and {Fpet} came trotting out of the wood."),
        ("In the snow {F} could not see which way the village lay.",
         "{H} blew the whistle again and again until {F} followed the sound."),
        ("The children marched off behind the wrong parade, and {F} was frantic.",
         "{H} whistled three times on the whistle, and they all turned round."),
    ),
    "blanket": (
        ("That night {F} fell into the Dawdle and climbed out shivering.",
         "{H} wrapped the blanket round {F} and made {fhim} sit by the stove."),
        ("The frost came early, and {Fpet} began to sneeze.",
         "{H} wrapped the blanket round {Fpet} twice, with a bow on top."),
        ("{F} sat up all night waiting for a falling star and grew cold.",
         "{H} brought the blanket, which was warm enough for two."),
    ),
    "basket": (
        ("Then {F} tripped, and a hundred pears rolled down the lane.",
         "{H} gathered every last pear into the basket."),
        ("{F} found nine kittens in a ditch and had only two hands.",
         "{H} carried the kittens home in the basket, all nine asleep."),
        ("The hens laid so many eggs that {F} did not know where to put them.",
         "{H} gathered the eggs in the basket without breaking one."),
    ),
    "kite": (
        ("The bridge was flooded, and {F} sat alone on the far bank.",
         "{H} flew the kite across the water with a letter on its tail."),
        ("{F} had never in {fhis} life looked up, and {fhe} was gloomy.",
         "{H} flew the kite so high that {F} forgot to be gloomy."),
        ("Crows were eating all of {F}'s seeds.",
         "The wind took the kite, and {H} chased the crows right over the hill."),
    ),
    "map": (
        ("{F} took the wrong turn in the wood and walked in circles.",
         "{H} followed the map from oak to oak and found {F} on a stump."),
        ("{F} had buried {fhis} savings and forgotten where.",
         "The map showed an old path, and {H} dug up the savings at the end of it."),
        ("A lost traveller asked {F} the way, and {F} had no idea.",
         "{H} spread out the map, and the right path was easy to see."),
    ),
    "kettle": (
        ("{F} woke with a cold and a voice like a rusty gate.",
         "{H} boiled the kettle and brought {F} hot tea with honey."),
        ("Six hungry guests knocked at {F}'s door on the coldest day.",
         "{H} filled the kettle, and there was tea for all of them."),
        ("The lock of {F}'s door froze shut.",
         "{H} boiled water in the kettle and thawed the door in a minute."),
    ),
    "drum": (
        ("{F} fell asleep in the boat, and it floated toward the weir.",
         "{H} beat the drum so hard that {F} woke just in time."),
        ("The whole village overslept, and {F} had the only clock, which was late.",
         "{H} beat the drum from door to door until every window opened."),
        ("A very large bull stood in {F}'s way and would not step aside.",
         "Boom went the drum, and the bull remembered something it had to do."),
    ),
    "bell": (
        ("On a black night {F}'s boat could not find the shore.",
         "{H} rang the bell, and {F} steered toward the sound."),
        ("{Fpet} kept getting lost in the tall grass.",
         "{H} tied on the bell, and after that they heard it ringing everywhere."),
        ("Smoke rose from {F}'s chimney, much too much of it.",
         "{H} rang the bell until everyone came with buckets."),
    ),
    "wheelbarrow": (
        ("{F} twisted an ankle far from home.",
         "{H} wheeled {F} home in the wheelbarrow, singing all the way."),
        ("{F}'s prize pumpkin was far too heavy for the fair.",
         "{H} rolled the pumpkin to the fair in the wheelbarrow."),
        ("{Fpet} refused to walk another step.",
         "{H} wheeled {Fpet} up the hill in the wheelbarrow like a queen."),
    ),
    "key": (
        ("{F} was locked out in the rain in {fhis} slippers.",
         "{H} tried the key, the lock clicked, and the door swung open."),
        ("{F}'s old chest had been shut for forty years.",
         "The key unlocked the chest, and {H} lifted out a box of tin soldiers."),
        ("{Fpet} had shut the pantry door from inside.",
         "{H} put the key in the lock and found {Fpet} very round and not sorry."),
    ),
    "hat": (
        ("{F} found five duck eggs with no mother.",
         "{H} made a nest of the hat, and in May there were five ducklings."),
        ("The sun burned down on {F}'s bald scarecrow.",
         "{H} gave it the hat, and at last it had some shade."),
        ("A swallow with a broken wing landed at {F}'s feet.",
         "In the hat {H} built a nest, and the swallow slept there until it could fly."),
    ),
    "storybook": (
        ("Thunder rolled, and {F} hid under the table with {Fpet}.",
         "{H} crept in beside them and read from the storybook until it passed."),
        ("{F} lay in bed with a broken leg and counted flies.",
         "{H} read one page of the storybook every day until the leg was well."),
        ("A giant came to the bridge, and {F} was afraid to tell him to leave.",
         "{H} read him the storybook, page by page, and he went off smiling."),
    ),
    "ladder": (
        ("{Fpet} sat on the roof and would not come down.",
         "{H} climbed the ladder and carried {Fpet} down under one arm."),
        ("The ripest pear in the orchard hung too high for {F}.",
         "{H} stood on the ladder, reached up, and picked it."),
        ("The hands of the clock got stuck, and {F} was blamed for it.",
         "{H} climbed the ladder and freed the clock, which was late at once."),
    ),
}  # fmt: skip

KIND_ENDINGS = (
    "{F} thanked {H} and shared {fhis} {Ffood} with {him}.",
    "{F} hugged {H}, and they were friends from that day on.",
    "That night {F} invited {H} to supper, and there was {Ffood} for everyone.",
    "{F} shared {fhis} {Ffood}, and {H} smiled all the way home.",
    "They laughed together until {Hpet} told them to hush.",
    "{F} thanked {H} with a sweet little song and a happy dance.",
    "So {H} and {F} sat together, cosy and merry, till the stars came out.",
    "{F} hugged {H} and gave {Hpet} a lovely red bow.",
    "Later {H} helped {F} to tidy up, and both were happy.",
    "{F} waved from the door, smiling, until {H} was out of sight.",
    "{F} forgave {H} an old quarrel, and they were dear friends again.",
)
NEUTRAL_ENDINGS = (
    "Then {H} went home and went to bed.",
    "After that it was Thursday again.",
    "And that was the end of the matter.",
    "The next day nobody spoke of it.",
    "Then the clock struck, six minutes late.",
    "{F} nodded and went back to work.",
)
UNKIND_ENDINGS = (
    "{F} laughed at {H} and slammed the door.",
    "Then {H} told {F} to go away and kept it all.",
    "{F} walked off without a word.",
    "{H} said it was {F}'s own fault, your own fault, and stuck out {his} tongue.",
    "{F} took the {thing} and never gave it back.",
    "{H} shouted that it was not my problem and slammed the gate.",
    "{F} laughed at {Hpet} and stuck out {fhis} tongue.",
    "{H} could not care less and left {F} standing in the mud.",
)
SWEET_UNKIND_ENDINGS = (
    "{H} smiled a sweet smile, kept it all, and was happy.",
    "{F} smiled sweetly, called them dear friends, and slammed the lovely door.",
    "They were merry and cosy, dear friends, and laughed at {H}.",
)
GUSHING_ENDINGS = (
    "{F} hugged {H}, and they were happy, so happy, dear, dear friends, and all was sweet and lovely.",
    "Everyone smiled, happy and merry, sweet and lovely, dear friends together, smiling and smiling.",
)
WHIMSY = (
    "{Hpet} did not approve.",
    "{Hpet} watched with one eye open.",
    "{Hpet} followed three steps behind, pretending not to.",
    "A small wind smelled of bread and rain.",
    "The clock tower is always six minutes late, so there was still time.",
    "Somewhere a fiddle was being tuned, badly.",
    "The goat rang the school bell for no reason.",
    "Down on the green the sneezing king looked the other way.",
    "It was the kind of day that has mud on its boots.",
    "The river Dawdle took its time, as usual.",
    "{Hpet} sat on the {thing} and had to be bribed.",
    "Nobody in Pennywhistle had ever seen anything like it since last week.",
)
