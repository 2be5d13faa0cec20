//! Tests that the judge allows what the faults explain, and nothing else.

use super::judge::{Cause, Phase, cause, is_flat, quarters};
use super::ledger::{Attempt, End, Fault, Kind, Op, outcome};
use layercache::CacheStatus;
use test_support::history::check::check;
use test_support::history::record::{Change, Fact, Outcome, Read, Records, Span};

const SECOND: u64 = 1_000_000_000;

const fn span(begin: u64, end: u64) -> Span {
    Span {
        begin: begin * SECOND,
        end: end * SECOND,
    }
}

fn fault(kind: Kind) -> Fault {
    Fault {
        kind,
        span: span(100, 102),
    }
}

fn attempt(op: Op, end: End, begin: u64, until: u64) -> Attempt {
    Attempt {
        op,
        span: span(begin, until),
        node: 0,
        end,
        why: String::new(),
    }
}

#[test]
fn a_read_that_fails_because_of_redis_is_an_error() {
    for op in Op::ALL.into_iter().filter(|op| op.is_read()) {
        for end in [End::Failed, End::Refused, End::Silent] {
            for kind in Kind::ALL.into_iter().filter(|kind| !kind.is_of_s3()) {
                let failed = attempt(op, end, 101, 101);
                assert_eq!(cause(&failed, &[fault(kind)]), Cause::Nothing);
            }
        }
        let failed = attempt(op, End::Failed, 101, 101);
        assert_eq!(cause(&failed, &[fault(Kind::S3Reset)]), Cause::S3);
        // No fault of S3 explains a refusal.
        let refused = attempt(op, End::Refused, 101, 101);
        assert_eq!(cause(&refused, &[fault(Kind::S3Reset)]), Cause::Nothing);
    }
}

#[test]
fn a_change_refused_while_redis_answers_is_an_error() {
    let refused = |begin, end| attempt(Op::DeleteBlob, End::Refused, begin, end);
    let faults = [fault(Kind::RedisFrozen)];
    assert_eq!(cause(&refused(101, 101), &faults), Cause::Redis);
    assert_eq!(cause(&refused(106, 107), &faults), Cause::Redis);
    assert_eq!(cause(&refused(108, 108), &faults), Cause::Nothing);
    assert_eq!(cause(&refused(98, 99), &faults), Cause::Nothing);
    let of_s3 = [fault(Kind::S3Late)];
    assert_eq!(cause(&refused(101, 101), &of_s3), Cause::Nothing);
}

#[test]
fn a_fault_explains_only_failures_close_to_it() {
    let faults = [fault(Kind::S3Refuses)];
    for op in Op::ALL {
        let failed = |begin, end| attempt(op, End::Failed, begin, end);
        assert_eq!(cause(&failed(90, 100), &faults), Cause::S3);
        assert_eq!(cause(&failed(103, 110), &faults), Cause::S3);
        assert_eq!(cause(&failed(90, 99), &faults), Cause::Nothing);
        assert_eq!(cause(&failed(104, 110), &faults), Cause::Nothing);
        assert_eq!(cause(&failed(101, 101), &[]), Cause::Nothing);
    }
}

#[test]
fn a_phase_names_the_services_that_failed() {
    let (redis, s3) = (fault(Kind::RedisKilled), fault(Kind::S3Held));
    let at = span(101, 101);
    assert_eq!(Phase::of(at, &[]), Phase::Calm);
    assert_eq!(Phase::of(at, &[redis]), Phase::Redis);
    assert_eq!(Phase::of(at, &[s3]), Phase::S3);
    assert_eq!(Phase::of(at, &[redis, s3]), Phase::Both);
}

#[test]
fn a_growing_gauge_is_not_flat() {
    let steady: Vec<_> = (0..400).map(|i| 1000 + i % 7).collect();
    let growing: Vec<_> = (0..400).map(|i| 1000 + i * 5).collect();
    let warming: Vec<_> = (0..400).map(|i| 1000 + 10 * i.min(90)).collect();
    assert!(is_flat(quarters(&steady), 0));
    assert!(is_flat(quarters(&warming), 0), "{:?}", quarters(&warming));
    assert!(!is_flat(quarters(&growing), 100));
    // One peak is no growth.
    let mut peak = steady;
    peak[390] = 1_000_000;
    assert!(is_flat(quarters(&peak), 0));
}

/// Makes a history of one blob that was pushed, and then deleted with this end. Returns whether a
/// read may find the blob, and whether a read may miss it.
fn after_a_delete_with(end: End) -> (bool, bool) {
    let change = |present, outcome, span| Change {
        fact: Fact::Link(0, 1),
        present,
        span,
        outcome,
        node: 0,
        what: "",
    };
    let (pushed, begin) = (Span { begin: 1, end: 2 }, 3);
    let (outcome, span) = outcome(end, begin);
    let changes = vec![
        change(true, Outcome::Done, pushed),
        change(false, outcome, span),
    ];
    let may = |present| {
        let read = Read {
            facts: [Some(Fact::Link(0, 1)), None],
            present,
            // Long after the delete.
            span: Span {
                begin: u64::MAX - 2,
                end: u64::MAX - 1,
            },
            status: CacheStatus::Memory,
            node: 0,
            what: "",
        };
        let verdict = check(&Records {
            changes: changes.clone(),
            reads: vec![read],
            ..Records::default()
        });
        verdict.wrong.is_empty()
    };
    (may(true), may(false))
}

#[test]
fn each_response_maps_to_its_outcome() {
    assert_eq!(after_a_delete_with(End::Answered), (false, true));
    assert_eq!(after_a_delete_with(End::Refused), (true, false));
    assert_eq!(after_a_delete_with(End::Failed), (true, true));
    assert_eq!(after_a_delete_with(End::Silent), (true, true));
}
