//! Tests that the checker accepts what the promise allows, and nothing else.

use layercache::CacheStatus;
use test_support::history::check::check;
use test_support::history::record::{Change, Fact, Outcome, Read, Records, Span};

const LINK: Fact = Fact::Link(0, 1);
const BLOB: Fact = Fact::Blob(1);

fn change(fact: Fact, present: bool, begin: u64, end: u64, outcome: Outcome) -> Change {
    Change {
        fact,
        present,
        span: Span { begin, end },
        outcome,
        node: 0,
        what: "",
    }
}

fn put(begin: u64, end: u64) -> Change {
    change(LINK, true, begin, end, Outcome::Done)
}

fn delete(begin: u64, end: u64) -> Change {
    change(LINK, false, begin, end, Outcome::Done)
}

fn unknown(change: Change) -> Change {
    Change {
        outcome: Outcome::Unknown,
        ..change
    }
}

fn refused(change: Change) -> Change {
    Change {
        outcome: Outcome::Refused,
        ..change
    }
}

/// Returns whether an answer is allowed, and whether the opposite answer would be allowed too.
fn answers(facts: [Option<Fact>; 2], begin: u64, end: u64, changes: &[Change]) -> (bool, bool) {
    let allowed = |present| {
        let read = Read {
            facts,
            present,
            span: Span { begin, end },
            status: CacheStatus::Memory,
            node: 0,
            what: "",
        };
        let verdict = check(&Records {
            changes: changes.to_vec(),
            reads: vec![read],
            ..Records::default()
        });
        verdict.wrong.is_empty()
    };
    (allowed(true), allowed(false))
}

#[track_caller]
fn only_present(begin: u64, end: u64, changes: &[Change]) {
    assert_eq!(
        answers([Some(LINK), None], begin, end, changes),
        (true, false)
    );
}

#[track_caller]
fn only_absent(begin: u64, end: u64, changes: &[Change]) {
    assert_eq!(
        answers([Some(LINK), None], begin, end, changes),
        (false, true)
    );
}

#[track_caller]
fn either(begin: u64, end: u64, changes: &[Change]) {
    assert_eq!(
        answers([Some(LINK), None], begin, end, changes),
        (true, true)
    );
}

#[test]
fn an_object_that_was_never_put_is_absent() {
    only_absent(10, 20, &[]);
    only_absent(10, 20, &[put(30, 40)]);
    only_absent(10, 20, &[delete(1, 2)]);
}

#[test]
fn a_read_after_an_acknowledged_change_must_see_it() {
    only_present(30, 40, &[put(10, 20)]);
    only_absent(50, 60, &[put(10, 20), delete(30, 40)]);
    only_present(70, 80, &[put(10, 20), delete(30, 40), put(50, 60)]);
}

#[test]
fn a_read_concurrent_with_a_change_may_see_either_state() {
    either(15, 30, &[put(10, 20)]);
    either(5, 11, &[put(10, 20)]);
    either(35, 50, &[put(10, 20), delete(30, 40)]);
    either(50, 70, &[put(10, 20), delete(30, 40), put(60, 80)]);
}

#[test]
fn concurrent_changes_may_happen_in_either_order() {
    either(60, 70, &[put(10, 40), delete(30, 50)]);
    either(60, 70, &[put(30, 50), delete(10, 40)]);
    // The first put ended before the delete began, so it explains nothing.
    only_absent(60, 70, &[put(10, 20), delete(30, 50)]);
}

#[test]
fn a_long_delete_does_not_excuse_a_read_after_a_short_delete() {
    // The put overlaps only the long delete. The short delete began after the put and has ended.
    only_absent(60, 70, &[put(10, 20), delete(30, 40), delete(5, 100)]);
    only_absent(110, 120, &[put(10, 20), delete(30, 40), delete(5, 100)]);
}

#[test]
fn a_refused_change_must_have_no_effect() {
    only_absent(30, 40, &[refused(put(10, 20))]);
    only_present(50, 60, &[put(10, 20), refused(delete(30, 40))]);
}

#[test]
fn an_unknown_change_may_take_effect_until_its_end() {
    either(30, 40, &[unknown(put(10, 20))]);
    either(50, 60, &[put(10, 20), unknown(delete(30, 40))]);
    // A delete that began after the end of the unknown put decides the answer.
    only_absent(50, 60, &[unknown(put(10, 20)), delete(30, 40)]);
    let open = Change {
        span: Span::open(10),
        ..unknown(put(0, 0))
    };
    either(50, 60, &[open, delete(30, 40)]);
    only_absent(5, 9, &[open]);
}

#[test]
fn a_read_of_two_facts_may_be_present_only_if_both_may() {
    let both = [Some(LINK), Some(BLOB)];
    let (put_blob, delete_blob) = (
        change(BLOB, true, 10, 20, Outcome::Done),
        change(BLOB, false, 30, 40, Outcome::Done),
    );
    assert_eq!(answers(both, 50, 60, &[put(10, 20)]), (false, true));
    assert_eq!(answers(both, 50, 60, &[put_blob]), (false, true));
    assert_eq!(
        answers(both, 50, 60, &[put(10, 20), put_blob]),
        (true, false)
    );
    let gone = [put(10, 20), put_blob, delete_blob];
    assert_eq!(answers(both, 50, 60, &gone), (false, true));
    assert_eq!(answers(both, 35, 60, &gone), (true, true));
}

#[test]
fn reads_are_counted_by_what_they_can_prove() {
    let read = |present, begin, status| Read {
        facts: [Some(LINK), None],
        present,
        span: Span {
            begin,
            end: begin + 5,
        },
        status,
        node: 0,
        what: "",
    };
    let verdict = check(&Records {
        changes: vec![put(10, 20), delete(30, 40)],
        reads: vec![
            read(true, 22, CacheStatus::Redis),
            read(true, 28, CacheStatus::Memory),
            read(true, 45, CacheStatus::Memory),
            read(true, 41, CacheStatus::Memory),
        ],
        ..Records::default()
    });
    assert_eq!(
        (verdict.decided, verdict.from_memory, verdict.from_redis),
        (1, 3, 1)
    );
    let wrong: Vec<_> = verdict.wrong.iter().map(|read| read.span.begin).collect();
    assert_eq!(wrong, [41, 45], "in the order of their questions");
}
