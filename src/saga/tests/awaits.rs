//! What a saga is said to wait for, and what to stand in its way.

use super::*;

/// A story that is looked at after each decision, as a node does.
struct Watched {
    story: Story,
    spot: Option<StepPhase>,
    seen: usize,
}

impl Watched {
    fn order(items: &[&str]) -> Self {
        let mut watched = Self {
            story: Story::order(items),
            spot: None,
            seen: 0,
        };
        watched.look();
        watched
    }

    fn look(&mut self) -> (String, String) {
        let events = &self.story.journal[self.seen..];
        self.spot = self.story.saga.awaits(self.spot.as_ref(), events);
        self.seen = self.story.journal.len();
        let trouble = self.story.saga.trouble(self.spot.as_ref());
        let shown =
            |spot: Option<&StepPhase>| spot.map_or_else(|| "-".to_owned(), ToString::to_string);
        let trouble = trouble.map_or_else(String::new, |trouble| {
            format!("{}: {}", shown(trouble.spot.as_ref()), trouble.reason)
        });
        (shown(self.spot.as_ref()), trouble)
    }

    /// After `outcome` of a command: what it waits for, and what stands in its way.
    fn after(&mut self, command: &str, outcome: Outcome) -> (String, String) {
        self.story.answer(command, outcome).unwrap();
        self.look()
    }
}

fn is(awaits: &str, trouble: &str) -> (String, String) {
    (awaits.to_owned(), trouble.to_owned())
}

#[test]
fn a_saga_waits_for_what_it_asked_last_or_for_what_is_left() {
    use Outcome::Succeeded;
    let mut order = Watched::order(&["a", "b"]);
    assert_eq!(order.look(), is("order/reserve", ""));
    assert_eq!(
        order.after("order reserve", Succeeded),
        is("payment/reserve", "")
    );
    assert_eq!(
        order.after("stock[0] reserve", Succeeded),
        is("payment/reserve", "")
    );
    assert_eq!(
        order.after("payment reserve", Succeeded),
        is("stock[1]/reserve", "")
    );
    let confirming = order.after("stock[1] reserve", Succeeded);
    assert_eq!(confirming.1, "");
    for command in ["order confirm", "payment confirm", "stock[0] confirm"] {
        order.after(command, Succeeded);
    }
    assert_eq!(order.look(), is("stock[1]/confirm", ""));
    order.after("stock[1] confirm", Succeeded);
    assert_eq!(order.after("receipt confirm", Succeeded), is("-", ""));
}

#[test]
fn an_attempt_that_failed_stands_in_the_way_until_it_is_made_good() {
    use Outcome::{Failed, Succeeded};
    let mut order = Watched::order(&["a"]);
    order.after("order reserve", Succeeded);
    let failing = "stock[0]/reserve: because";
    assert_eq!(
        order.after("stock[0] reserve", Failed),
        is("stock[0]/reserve", failing)
    );
    // Whatever else happens.
    assert_eq!(
        order.after("payment reserve", Succeeded),
        is("stock[0]/reserve", failing)
    );
    order.story.wake();
    assert_eq!(
        order.look(),
        is("stock[0]/reserve", failing),
        "asked again, not yet answered"
    );
    assert_eq!(order.after("stock[0] reserve", Succeeded).1, "");
}

#[test]
fn a_suspension_is_found_at_its_step() {
    use Outcome::{Rejected, Succeeded};
    let mut order = Watched::order(&[]);
    order.after("order reserve", Succeeded);
    order.after("payment reserve", Succeeded);
    let stuck = is("payment/confirm", "payment/confirm: rejected: because");
    assert_eq!(order.after("payment confirm", Rejected), stuck);
    assert_eq!(order.after("order confirm", Succeeded), stuck);
    order
        .story
        .tell(operator("1", OperatorKind::Pause))
        .unwrap();
    assert_eq!(order.look(), is("payment/confirm", "-: paused by a person"));
}

#[test]
fn a_roll_back_is_the_matter_of_the_step_that_refused_also_when_it_has_ended() {
    use Outcome::{Failed, Rejected, Succeeded};
    let mut order = Watched::order(&["a"]);
    order.after("order reserve", Succeeded);
    order.after("stock[0] reserve", Succeeded);
    let refused = "payment/reserve: payment rejected: because";
    let rolling = order.after("payment reserve", Rejected);
    assert_eq!(rolling, is("stock[0]/compensate", refused));
    let failing = order.after("stock[0] compensate", Failed);
    assert_eq!(
        failing,
        is("stock[0]/compensate", "stock[0]/compensate: because")
    );
    assert_eq!(
        order.after("stock[0] compensate", Succeeded),
        is("order/compensate", refused)
    );
    assert_eq!(order.after("order compensate", Succeeded), is("-", refused));
}

#[test]
fn what_a_person_decided_is_no_matter_of_a_step() {
    let mut order = Watched::order(&["a"]);
    order
        .story
        .tell(operator("1", OperatorKind::Cancel))
        .unwrap();
    assert_eq!(order.look().1, "-: cancelled by ann: I looked");
    let mut order = Watched::order(&["a"]);
    let force = OperatorKind::ForceComplete;
    order.story.tell(operator("1", force)).unwrap();
    assert_eq!(order.look(), is("-", "-: forced by ann: I looked"));
}
