//! Tests of the breaker, which need no connection.

use super::*;

const PATIENCE: Duration = Duration::from_millis(50);
const SOON: Duration = Duration::from_millis(1);

fn breaker() -> (Breaker<()>, Instant) {
    let now = Instant::now();
    (Breaker::new(PATIENCE, now), now)
}

fn read(breaker: &mut Breaker<()>, now: Instant) -> Ask<()> {
    breaker.ask(now, Patience::Read, None)
}

/// Starts the probe that is due.
fn probe(breaker: &mut Breaker<()>, now: Instant) -> Arc<()> {
    match read(breaker, now) {
        Ask::Probe(task) => task,
        other => panic!("{other:?}"),
    }
}

fn closed(number: u64) -> (Breaker<()>, Instant) {
    let (mut breaker, now) = breaker();
    let _task = probe(&mut breaker, now);
    assert_eq!(breaker.probed((), number, now), Some(Transition::Closed));
    (breaker, now)
}

/// Returns a breaker whose server has been silent since `now`, and the value that its listener
/// keeps.
fn silent() -> (Breaker<()>, Instant, Arc<()>) {
    let (mut breaker, now) = closed(1);
    let transition = breaker.unanswered(1, now, now + PATIENCE);
    assert_eq!(transition, Some(Transition::Opened));
    match read(&mut breaker, now) {
        Ask::Listen(task, 1) => (breaker, now, task),
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_caller_probes_and_reads_wait_for_it_for_a_moment() {
    let (mut breaker, now) = breaker();
    let _task = probe(&mut breaker, now);
    let until = now + PATIENCE;
    assert!(matches!(read(&mut breaker, now), Ask::Wait(_, Some(at)) if at == until));
    assert!(
        matches!(read(&mut breaker, until), Ask::No(None)),
        "the read has waited long enough"
    );
    breaker.probed((), 1, now);
    assert!(matches!(read(&mut breaker, until), Ask::Connected((), 1)));
}

#[test]
fn silence_is_measured_in_time_and_not_in_unanswered_operations() {
    let (mut breaker, now) = closed(1);
    for _ in 0..100 {
        let transition = breaker.unanswered(1, now, now + PATIENCE - SOON);
        assert_eq!(
            transition, None,
            "the count of unanswered operations does not matter"
        );
    }
    breaker.answered(1, now + SOON);
    let transition = breaker.unanswered(1, now, now + PATIENCE);
    assert_eq!(transition, None, "another operation was answered meanwhile");
    breaker.answered(7, now + SOON * 2);
    let transition = breaker.unanswered(7, now, now + PATIENCE * 9);
    assert_eq!(transition, None, "the operation used another connection");
    let transition = breaker.unanswered(1, now, now + SOON + PATIENCE);
    assert_eq!(transition, Some(Transition::Opened));
    let transition = breaker.unanswered(1, now, now + PATIENCE * 2);
    assert_eq!(transition, None, "the silence is known already");
}

#[test]
fn a_silent_server_keeps_its_connection_and_is_asked_again_when_it_answers_in_time() {
    let (mut breaker, now, _task) = silent();
    assert!(matches!(read(&mut breaker, now), Ask::No(Some(_))));
    assert_eq!(
        (breaker.number(), breaker.connection(1)),
        (Some(1), Some(()))
    );
    breaker.answered(1, now + PATIENCE * 2);
    assert!(
        matches!(read(&mut breaker, now), Ask::No(Some(_))),
        "the answer came late"
    );
    assert_eq!(
        breaker.resumed(7, now),
        None,
        "another connection has answered"
    );
    assert_eq!(
        breaker.resumed(1, now + PATIENCE * 3),
        Some(Transition::Closed)
    );
    assert!(matches!(read(&mut breaker, now), Ask::Connected((), 1)));
    assert_eq!(breaker.resumed(1, now), None);
}

#[test]
fn changes_wait_for_a_silent_server() {
    let (mut breaker, now, _task) = silent();
    let stall = now + PATIENCE * STALL;
    let creation = breaker.ask(now, Patience::Creation, None);
    assert!(matches!(creation, Ask::Wait(_, Some(until)) if until == stall));
    let creation = breaker.ask(stall, Patience::Creation, None);
    assert!(
        matches!(creation, Ask::No(Some(_))),
        "the creation has waited long enough"
    );
    let removal = breaker.ask(stall, Patience::Removal, None);
    let Ask::Wait(transitioned, None) = removal else {
        panic!("{removal:?}");
    };
    assert!(!transitioned.has_changed().unwrap());
    breaker.resumed(1, stall);
    assert!(transitioned.has_changed().unwrap());
}

#[test]
fn a_task_that_ends_with_its_runtime_is_started_again() {
    let (mut breaker, now, task) = silent();
    drop(task);
    assert!(matches!(read(&mut breaker, now), Ask::Listen(_, 1)));
    let (mut breaker, now) = self::breaker();
    drop(probe(&mut breaker, now));
    let _task = probe(&mut breaker, now);
    assert!(matches!(read(&mut breaker, now), Ask::Wait(..)));
}

#[test]
fn a_server_without_standing_is_not_asked() {
    let (mut breaker, now) = closed(1);
    let stale = || Some(ConnectError::Stale(PATIENCE));
    for patience in [Patience::Read, Patience::Creation] {
        let ask = breaker.ask(now, patience, stale());
        assert!(matches!(ask, Ask::No(Some(_))), "{ask:?}");
    }
    let removal = breaker.ask(now, Patience::Removal, stale());
    assert!(matches!(removal, Ask::Wait(_, Some(until)) if until > now));
    assert!(matches!(read(&mut breaker, now), Ask::Connected((), 1)));
}

#[test]
fn changes_wait_for_a_connection() {
    let (mut breaker, now) = closed(1);
    breaker.lost(1, ConnectError::Closed, now);
    let _task = probe(&mut breaker, now);
    for patience in [Patience::Creation, Patience::Removal] {
        let late = now + PATIENCE * 9;
        let ask = breaker.ask(late, patience, None);
        assert!(matches!(ask, Ask::Wait(_, None)), "{ask:?}");
    }
    breaker.failed(ConnectError::Slow(PATIENCE), now, 0.0);
    let creation = breaker.ask(now, Patience::Creation, None);
    assert!(
        matches!(creation, Ask::No(Some(_))),
        "the server is known to be away"
    );
    let removal = breaker.ask(now, Patience::Removal, None);
    assert!(matches!(removal, Ask::Wait(_, Some(until)) if until == now + PAUSE));
    let later = now + PAUSE;
    let Ask::Probe(_task) = breaker.ask(later, Patience::Removal, None) else {
        panic!("{breaker:?}");
    };
    let creation = breaker.ask(later, Patience::Creation, None);
    assert!(
        matches!(creation, Ask::No(Some(_))),
        "the server is still away"
    );
    let removal = breaker.ask(later, Patience::Removal, None);
    assert!(matches!(removal, Ask::Wait(_, None)));
    breaker.shut();
    let removal = breaker.ask(later, Patience::Removal, None);
    assert!(matches!(removal, Ask::No(Some(_))));
}

#[test]
fn a_failed_probe_is_repeated_after_a_random_pause() {
    for (jitter, pause) in [(0.0, PAUSE), (1.0, PAUSE / 2)] {
        let (mut breaker, now) = breaker();
        let _task = probe(&mut breaker, now);
        let transition = breaker.failed(ConnectError::Slow(PATIENCE), now, jitter);
        assert_eq!(transition, Some(Transition::Opened));
        assert_eq!(breaker.probe_at(), Some(now + pause));
        let early = now + pause - SOON;
        assert!(matches!(read(&mut breaker, early), Ask::No(Some(_))));
        let _task = probe(&mut breaker, now + pause);
        let transition = breaker.failed(ConnectError::Slow(PATIENCE), now, jitter);
        assert_eq!(transition, None, "the log has reported it already");
    }
}

#[test]
fn a_lost_connection_is_replaced_at_once_and_reads_wait_for_it() {
    let (mut breaker, now) = closed(1);
    assert!(
        !breaker.lost(7, ConnectError::Closed, now),
        "another connection was lost"
    );
    assert!(breaker.lost(1, ConnectError::Closed, now));
    assert!(
        !breaker.lost(1, ConnectError::Closed, now),
        "the connection is lost already"
    );
    let _task = probe(&mut breaker, now);
    assert!(matches!(read(&mut breaker, now), Ask::Wait(..)));
    assert_eq!(breaker.probed((), 2, now), Some(Transition::Closed));
}

#[test]
fn a_breaker_that_is_shut_stays_shut() {
    let (mut breaker, now) = breaker();
    let _task = probe(&mut breaker, now);
    breaker.shut();
    assert_eq!(breaker.probed((), 1, now), None);
    assert_eq!(breaker.failed(ConnectError::Closed, now, 0.0), None);
    assert!(matches!(read(&mut breaker, now + PAUSE * 9), Ask::No(_)));
}
