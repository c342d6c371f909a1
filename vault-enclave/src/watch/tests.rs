use super::*;

fn clients(stop: u64) -> Clients {
    let serve = Serve { requests_per_minute: 1000, ..Serve::default() };
    Clients::new(&serve, &Watch { warn: stop / 4, slow: stop / 2, stop })
}

/// A unit vector in one of `of` directions.
fn direction(n: usize, of: usize) -> Vec<f32> {
    (0..of).map(|i| if i == n % of { 1.0 } else { 0.0 }).collect()
}

#[test]
fn the_same_question_again_and_again_is_no_extraction() {
    let (clients, now) = (clients(20), Instant::now());
    for n in 0..500 {
        assert_eq!(clients.admit("a", now), Ok(()));
        assert_eq!(clients.answered("a", now, &["same"], &[direction(n, 8)], 1), Sign::Quiet);
    }
}

#[test]
fn many_questions_of_one_subject_are_no_extraction() {
    let (clients, now) = (clients(20), Instant::now());
    for n in 0..500 {
        assert_eq!(clients.admit("a", now), Ok(()));
        assert_eq!(clients.answered("a", now, &[&n.to_string()], &[direction(0, 8)], 1), Sign::Quiet);
    }
}

#[test]
fn many_questions_of_every_subject_are_warned_of_once_slowed_and_stopped() {
    let (clients, now) = (clients(20), Instant::now());
    let (mut warned, mut slowed) = (0, 0);
    let stopped = (0..500).find(|n| {
        if clients.admit("a", now).is_err() {
            return true;
        }
        match clients.answered("a", now, &[&n.to_string()], &[direction(*n, 100)], 1) {
            Sign::Quiet => {}
            Sign::Warn(_) => warned += 1,
            Sign::Slow => slowed += 1,
        }
        false
    });
    assert!(stopped.is_some_and(|n| (20..40).contains(&n)), "{stopped:?}");
    assert!(warned == 1 && slowed > 3, "{warned} {slowed}");
    let Err((Limit::Extraction, wait)) = clients.admit("a", now) else { panic!() };
    assert!(wait > 86_000);
    assert_eq!(clients.admit("b", now), Ok(())); // another client is another matter
    assert_eq!(clients.admit("a", now + DAY), Ok(()));
}

#[test]
fn requests_count_by_the_minute_and_tokens_by_the_day() {
    let serve = Serve { requests_per_minute: 2, tokens_per_day: 10, ..Serve::default() };
    let (clients, now) = (Clients::new(&serve, &Watch::default()), Instant::now());
    assert_eq!([clients.admit("a", now), clients.admit("a", now)], [Ok(()), Ok(())]);
    assert_eq!(clients.admit("a", now), Err((Limit::Requests, 61)));
    assert_eq!(clients.admit("a", now + MINUTE), Ok(()));
    clients.answered("a", now + MINUTE, &["x"], &[direction(0, 2)], 10);
    let Err((Limit::Tokens, _)) = clients.admit("a", now + 2 * MINUTE) else { panic!() };
    assert_eq!(clients.admit("a", now + DAY), Ok(()));
}
