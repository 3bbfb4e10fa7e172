//! What whoever decides who fetches has to keep to, and the table keeping to it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::flight::claims::{Claims, Progress};

/// A fetch that tells whether it was given up.
#[derive(Clone, Default)]
struct Seen(Arc<(AtomicBool, AtomicUsize)>);

impl Progress for Seen {
    fn leader_gone(&self) {
        self.0.0.store(true, Ordering::SeqCst);
    }
}

impl Seen {
    fn numbered(number: usize) -> Self {
        let seen = Self::default();
        seen.0.1.store(number, Ordering::SeqCst);
        seen
    }

    fn number(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }

    fn is_gone(&self) -> bool {
        self.0.0.load(Ordering::SeqCst)
    }
}

fn lead<C: Claims<u8, Seen>>(claims: &C, key: u8, number: usize, usable: bool) -> C::Lease {
    match claims.claim(&key, |_| usable, || Seen::numbered(number)) {
        Claim::Leader(lease) => lease,
        Claim::Follower(_) => panic!("{key} is claimed"),
    }
}

fn follow<C: Claims<u8, Seen>>(claims: &C, key: u8) -> Seen {
    match claims.claim(&key, |_| true, || panic!("a follower starts nothing")) {
        Claim::Follower(seen) => seen,
        Claim::Leader(_) => panic!("{key} is free"),
    }
}

/// What every implementation of [`Claims`] has to pass.
fn conforms<C: Claims<u8, Seen>>(make: impl Fn() -> C) {
    the_first_leads_and_the_others_follow(&make());
    keys_are_apart(&make());
    a_dropped_lease_frees_its_key_and_tells_the_followers(&make());
    the_lease_of_what_was_not_usable_is_worth_nothing(&make());
}

fn the_first_leads_and_the_others_follow<C: Claims<u8, Seen>>(claims: &C) {
    assert!(claims.find(&1).is_none());
    let _lease = lead(claims, 1, 10, true);
    assert_eq!(follow(claims, 1).number(), 10);
    assert_eq!(claims.find(&1).unwrap().number(), 10);
}

fn keys_are_apart<C: Claims<u8, Seen>>(claims: &C) {
    let first = lead(claims, 1, 10, true);
    let _second = lead(claims, 2, 20, true);
    drop(first);
    assert!(claims.find(&1).is_none());
    assert!(!follow(claims, 2).is_gone());
}

fn a_dropped_lease_frees_its_key_and_tells_the_followers<C: Claims<u8, Seen>>(claims: &C) {
    let lease = lead(claims, 1, 10, true);
    let follower = follow(claims, 1);
    drop(lease);
    assert!(follower.is_gone());
    let _lease = lead(claims, 1, 11, true);
    assert!(!follow(claims, 1).is_gone());
}

fn the_lease_of_what_was_not_usable_is_worth_nothing<C: Claims<u8, Seen>>(claims: &C) {
    let stale = lead(claims, 1, 10, true);
    let _lease = lead(claims, 1, 11, false);
    drop(stale);
    assert_eq!(follow(claims, 1).number(), 11);
}

#[test]
fn the_table_keeps_to_what_claims_are() {
    conforms(Table::default);
}
