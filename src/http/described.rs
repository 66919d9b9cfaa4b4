//! What each endpoint is for, in words: the second half of the table of endpoints (`routes`), from
//! which the `OpenAPI` document and the page about the API are made. A test holds that each has its line.

mod others;

/// An endpoint in words.
pub(super) struct Description {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    /// In the imperative.
    pub(super) summary: &'static str,
    /// What may stand in the query.
    pub(super) query: &'static [Ask],
    /// What the body is, if it takes one.
    pub(super) body: Option<Takes>,
    /// What it answers beside what any endpoint may.
    pub(super) answers: &'static [(u16, &'static str)],
}

/// A parameter of the query.
pub(super) struct Ask {
    pub(super) name: &'static str,
    pub(super) is_number: bool,
    pub(super) about: &'static str,
}

/// A body.
pub(super) enum Takes {
    /// Any JSON: a saga's input, a signal's payload.
    Any(&'static str),
    /// An object with these fields; those that must be there come first, so many.
    Fields(usize, &'static [(&'static str, &'static str)]),
}

const fn text(name: &'static str, about: &'static str) -> Ask {
    Ask {
        name,
        is_number: false,
        about,
    }
}

const fn number(name: &'static str, about: &'static str) -> Ask {
    Ask {
        name,
        is_number: true,
        about,
    }
}

const LIMIT: Ask = number("limit", "How many at most");
const WHO: (&str, &str) = ("by", "Who does it; whoever is signed in stands first");
const WHY: (&str, &str) = ("why", "Why, for the history and the audit log");

const fn get(
    path: &'static str,
    summary: &'static str,
    query: &'static [Ask],
    answers: &'static [(u16, &'static str)],
) -> Description {
    Description {
        method: "GET",
        path,
        summary,
        query,
        body: None,
        answers,
    }
}

const fn post(
    path: &'static str,
    summary: &'static str,
    body: Takes,
    answers: &'static [(u16, &'static str)],
) -> Description {
    Description {
        method: "POST",
        path,
        summary,
        query: &[],
        body: Some(body),
        answers,
    }
}

const STARTED: &[(u16, &str)] = &[
    (201, "It began"),
    (200, "It had begun before, with the same key and input"),
    (202, "It begins once the saga that it replaces has ended"),
    (404, "No definition has this name"),
    (409, "The key is taken by a saga with another input"),
    (422, "The input breaks the schema, or gives no key"),
];
const NO_SAGA: (u16, &str) = (404, "There is no such saga");
const NOT_NOW: (u16, &str) = (409, "It can't be done where the saga stands");
const ACTED: &[(u16, &str)] = &[(200, "The saga's row"), NO_SAGA, NOT_NOW];
const ACTION: Takes = Takes::Fields(
    1,
    &[
        WHY,
        WHO,
        ("id", "The same id again is the same action"),
        ("step", "For `skip` and `retry`: the step's path"),
        ("reply", "For `skip`: the result that counts instead"),
        ("with", "For `retry` of a step: other input"),
    ],
);
const SIGNALLED: &[(u16, &str)] = &[
    (200, "What became of it: `accepted` or `duplicate`"),
    (404, "There is no such saga"),
    (
        409,
        "It can't hear signals any more, or had another one with this id",
    ),
    (422, "It never waits for this signal"),
];
/// Which sagas (the names are those of [`Filter`](crate::store::Filter)), and what is asked besides.
macro_rules! which_sagas {
    ($($more:expr),*) => {
        &[
            text("name", "Of this definition"),
            text("version", "Of these versions, with commas"),
            text("status", "With these statuses, with commas; `live`, `ended`"),
            text("key", "That has this key now"),
            text("key_prefix", "That has a key that begins so"),
            text("started_since", "Started at this time or later; a duration is that long ago"),
            text("started_until", "Started before this time"),
            text("ended_since", "Ended at this time or later"),
            text("ended_until", "Ended before this time"),
            text("updated_since", "To which something happened at this time or later"),
            text("updated_until", "To which nothing has happened since this time"),
            text("older_than", "Started longer ago"),
            text("younger_than", "Started less long ago"),
            text("step", "That waits for this step or failed at it"),
            text("phase", "The same for its phase"),
            text("reason", "Whose reason has this text"),
            text("cause", "Of this cause"),
            text("in_trouble", "`true`: in whose way something stands"),
            text("label", "With this label: `customer=alice`, `amount>=100`"),
            text("parent", "Run by this saga"),
            text("id", "These sagas, with commas")
            $(, $more)*
        ]
    };
}

const FOUND: &[Ask] = which_sagas![
    text(
        "sort",
        "`started`, `ended` or `key`; `-` before it: the largest first"
    ),
    text("after", "The `next` of the page before"),
    text("before", "The same"),
    text("count", "`true`: say also how many there are, up to 10,000"),
    LIMIT
];
const CHANGED: &[Ask] = which_sagas![];
const TASKS: &[Ask] = which_sagas![text("after", "The `next` of the page before"), LIMIT];
const GROUPED: &[Ask] = which_sagas![LIMIT];

/// Those about sagas and jobs, in the order of `routes`.
const DESCRIPTIONS: &[Description] = &[
    get(
        "/sagas",
        "List sagas, newest first",
        FOUND,
        &[(200, "`sagas`, and `next` if there are more")],
    ),
    get(
        "/sagas/groups",
        "Count sagas in trouble by cause, live ones unless `status` says others",
        GROUPED,
        &[(200, "`groups`, those of most sagas first")],
    ),
    post(
        "/sagas/groups",
        "Start a saga of this name",
        Takes::Any("The saga's input"),
        STARTED,
    ),
    get(
        "/sagas/live",
        "Hear of sagas as they change (server-sent events)",
        CHANGED,
        &[(
            200,
            "Events `saga`, `left` and `more`, until the reader goes",
        )],
    ),
    post(
        "/sagas/live",
        "Start a saga of this name",
        Takes::Any("The saga's input"),
        STARTED,
    ),
    post(
        "/sagas/{saga}",
        "Start a saga",
        Takes::Any("The saga's input"),
        STARTED,
    ),
    get(
        "/sagas/{saga}",
        "Show a saga: its row, steps and history",
        &[
            text(
                "only",
                "`head`: the row alone; `summary`: without steps and timeline",
            ),
            text("verify", "`true`: a summary of the whole journal, verified"),
        ],
        &[(200, "The saga"), NO_SAGA],
    ),
    get(
        "/sagas/{saga}/live",
        "Hear what happens to a saga (server-sent events)",
        &[],
        &[
            (
                200,
                "An event `entry` for each new journal entry, until the reader goes",
            ),
            NO_SAGA,
        ],
    ),
    get(
        "/live",
        "Hear how many sagas live, begin and end (server-sent events)",
        &[],
        &[(
            200,
            "An event `counters` whenever they change, until the reader goes",
        )],
    ),
    get(
        "/sagas/{saga}/steps",
        "List a saga's steps, in the definition's order",
        &[
            text(
                "path",
                "This step: `stock` for all items, `stock[2]` for one",
            ),
            text("stage", "That stand so, with commas: `reserving,to_come`"),
            text("after", "The `next` of the page before"),
            LIMIT,
        ],
        &[(200, "`steps`, and `next` if there are more"), NO_SAGA],
    ),
    get(
        "/sagas/{saga}/timeline",
        "List what happened to a saga, newest first, or with `after` in order",
        &[
            number("after", "After this entry, in order"),
            number("before", "Before this entry, newest first"),
            LIMIT,
        ],
        &[(200, "`timeline`, and `next` if there are more"), NO_SAGA],
    ),
    post(
        "/sagas/{saga}/force-complete",
        "Count a saga as completed, whatever its steps say",
        ACTION,
        ACTED,
    ),
    post(
        "/sagas/{saga}/force-compensated",
        "Count a saga as compensated, whatever its steps say",
        ACTION,
        ACTED,
    ),
    post(
        "/sagas/{saga}/{action}",
        "Cancel, retry, skip, pause or resume a saga",
        ACTION,
        ACTED,
    ),
    post(
        "/sagas/{saga}/signals/{signal}",
        "Send a saga a signal",
        Takes::Any("The signal's payload"),
        SIGNALLED,
    ),
    post(
        "/sagas/{saga}/keys/{key}/signals/{signal}",
        "Send a signal to the saga that has a key",
        Takes::Any("The signal's payload"),
        SIGNALLED,
    ),
    get(
        "/definitions",
        "List definitions with their versions",
        &[text("name", "Of this name")],
        &[(
            200,
            "`definitions`, each with how many sagas live by each version",
        )],
    ),
    get(
        "/definitions/{saga}",
        "Show a definition: its source, and its blocks as a tree",
        &[number("version", "Which; the newest otherwise")],
        &[(200, "The definition"), (404, "There is none")],
    ),
    get(
        "/overview",
        "Say how all goes: node, database, broker, the last hour, participants",
        &[],
        &[(200, "All of it; kept for a second")],
    ),
    get(
        "/tasks",
        "List what waits for a signal or a person",
        TASKS,
        &[(200, "`tasks`, and `next` if there are more")],
    ),
    get(
        "/schedules",
        "List schedules, how far each has come and its next ticks",
        &[],
        &[(200, "`schedules`, and the time `now` by which they tick")],
    ),
    post(
        "/schedules/{saga}",
        "Set a schedule's position",
        Takes::Fields(
            2,
            &[
                ("to", "The time, as in `2026-11-01T00:00:00Z`"),
                WHY,
                WHO,
                ("rhythm", "Which, if the definition has had several"),
            ],
        ),
        &[
            (200, "The schedule"),
            (404, "There is none"),
            (409, "Which rhythm is not said"),
        ],
    ),
    get(
        "/jobs",
        "List jobs, newest first",
        &[text("before", "The `next` of the page before"), LIMIT],
        &[(200, "`jobs`, and `next` if there are more")],
    ),
    post(
        "/jobs",
        "Do something to all sagas that a filter finds",
        Takes::Fields(
            3,
            &[
                (
                    "action",
                    "`retry`, `skip`, `cancel`, `pause`, `resume`, `force-complete`, `force-compensated` or `signal`",
                ),
                (
                    "filter",
                    "Which sagas, as the query of a list says it; live ones, unless it says others",
                ),
                WHY,
                WHO,
                ("rate", "How many in what time: `20/s`, `100/m`"),
                (
                    "canary",
                    "How many come first: if they do not come home, the job pauses",
                ),
                ("dry_run", "Only say how many, with a sample"),
                ("reply", "For `skip`: what counts as each step's result"),
                ("signal", "For `signal`: which"),
                ("payload", "For `signal`: its payload"),
            ],
        ),
        &[(201, "The job"), (200, "What it would be about")],
    ),
    get(
        "/jobs/{job}",
        "Show a job and how far it has come",
        &[],
        &[(200, "The job"), (404, "There is none")],
    ),
    get(
        "/jobs/{job}/results",
        "List what became of each saga",
        &[
            text("refused", "`true`: only those that refused"),
            text("after", "The `next` of the page before"),
            LIMIT,
        ],
        &[
            (200, "`results`, and `next` if there are more"),
            (404, "There is no such job"),
        ],
    ),
    post(
        "/jobs/{job}/{command}",
        "Pause a job, let it go on, or abort it",
        Takes::Fields(1, &[WHY, WHO]),
        &[
            (200, "The job"),
            (404, "There is none"),
            (409, "It has ended"),
        ],
    ),
];

/// All that is said.
pub(super) fn all() -> impl Iterator<Item = &'static Description> {
    DESCRIPTIONS.iter().chain(others::DESCRIPTIONS)
}

/// What is said of an endpoint.
pub(super) fn description(method: &str, path: &str) -> Option<&'static Description> {
    all().find(|it| it.method == method && it.path == path)
}
