//! A gate that is shut for a time and then lets exactly one through to see. Pure: knows no clock and no network.

use std::time::Duration;

use tokio::time::Instant;

/// Open, or shut with the time from which it is tried again.
#[derive(Debug, Default)]
pub(super) struct Gate {
    shut: Option<Shut>,
    probes: u64,
}

#[derive(Debug)]
struct Shut {
    until: Instant,
    /// Times it was shut again since it was last open.
    renewed: u32,
    probe: Option<Probe>,
}

/// Names the one who was let through a shut gate; an old name means nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Probe(u64);

/// How long those wait at least who come while another tries.
const WHILE_PROBED: Duration = Duration::from_secs(1);

impl Gate {
    /// Whether it is shut, be it that its time is over.
    pub(super) fn is_shut(&self) -> bool {
        self.shut.is_some()
    }

    /// How much longer the gate stays shut for one who comes now; `None`: come in.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        let shut = self.shut.as_ref()?;
        let left = shut.until.saturating_duration_since(now);
        if left.is_zero() {
            shut.probe.map(|_| WHILE_PROBED)
        } else {
            Some(left)
        }
    }

    /// Lets one in, as the probe where the gate was shut; the error is [`Gate::left`].
    pub(super) fn enter(&mut self, now: Instant) -> Result<Option<Probe>, Duration> {
        if let Some(left) = self.left(now) {
            return Err(left);
        }
        let Some(shut) = &mut self.shut else {
            return Ok(None);
        };
        self.probes += 1;
        shut.probe = Some(Probe(self.probes));
        Ok(shut.probe)
    }

    /// The probe ended without telling anything: the next one is let in instead.
    pub(super) fn abandon(&mut self, probe: Probe) {
        if let Some(shut) = &mut self.shut
            && shut.probe == Some(probe)
        {
            shut.probe = None;
        }
    }

    /// Whether `probe` is the one that is out.
    pub(super) fn is_probed_by(&self, probe: Option<Probe>) -> bool {
        let out = self.shut.as_ref().and_then(|shut| shut.probe);
        probe.is_some() && out == probe
    }

    /// Shuts the gate, or shuts it again after its time, for what `wait` makes of the number of renewals; gives that
    /// time. While its time runs it is only ever prolonged: that news is about what had been sent before.
    pub(super) fn shut(&mut self, now: Instant, wait: impl Fn(u32) -> Duration) -> Duration {
        let renewed = match &self.shut {
            None => 0,
            Some(shut) if shut.until <= now => shut.renewed.saturating_add(1),
            Some(shut) => {
                let (until, renewed) = (shut.until.max(now + wait(shut.renewed)), shut.renewed);
                return self.set(now, until, renewed);
            }
        };
        self.set(now, now + wait(renewed), renewed)
    }

    fn set(&mut self, now: Instant, until: Instant, renewed: u32) -> Duration {
        self.shut = Some(Shut {
            until,
            renewed,
            probe: None,
        });
        until.saturating_duration_since(now)
    }

    /// Opens the gate.
    pub(super) fn open(&mut self) {
        self.shut = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn growing(renewed: u32) -> Duration {
        SECOND * (renewed + 1)
    }

    #[test]
    fn an_open_gate_lets_everyone_in() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        assert_eq!(gate.enter(now), Ok(None));
        assert_eq!(gate.enter(now), Ok(None));
        assert_eq!(gate.left(now), None);
    }

    #[test]
    fn a_shut_gate_lets_nobody_in_until_its_time_and_then_exactly_one() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        assert_eq!(gate.shut(now, growing), SECOND);
        assert_eq!(gate.enter(now + SECOND / 4), Err(SECOND * 3 / 4));
        let later = now + SECOND;
        assert_eq!(gate.left(later), None);
        assert!(matches!(gate.enter(later), Ok(Some(_))));
        assert_eq!(gate.enter(later + SECOND * 99), Err(WHILE_PROBED));
    }

    #[test]
    fn an_abandoned_probe_makes_way_for_another_and_an_old_one_for_nobody() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        gate.shut(now, growing);
        let later = now + SECOND;
        let first = gate.enter(later).unwrap().unwrap();
        gate.abandon(first);
        let second = gate.enter(later).unwrap().unwrap();
        gate.abandon(first);
        assert!(gate.enter(later).is_err());
        assert!(gate.is_probed_by(Some(second)) && !gate.is_probed_by(Some(first)));
    }

    #[test]
    fn shutting_again_after_its_time_takes_longer_and_before_it_does_not() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        gate.shut(now, growing);
        assert_eq!(gate.shut(now, growing), SECOND);
        assert_eq!(gate.shut(now, |_| SECOND * 5), SECOND * 5);
        assert_eq!(gate.shut(now, growing), SECOND * 5);
        assert_eq!(gate.shut(now + SECOND * 5, growing), SECOND * 2);
        gate.open();
        assert_eq!(gate.shut(now + SECOND * 9, growing), SECOND);
    }
}
