//! Measurements in turn.

use crate::Result;
use crate::peers::Contender;
use crate::report::Series;

/// What one contender gave, in each round.
#[derive(Debug)]
pub(crate) struct Samples<T> {
    pub(crate) name: &'static str,
    pub(crate) values: Vec<T>,
}

/// Measures every contender in each of so many rounds, each time beginning with another; `measure` is told which
/// round it is.
pub(crate) fn interleaved<T>(
    pairs: usize,
    contenders: &[Contender],
    mut measure: impl FnMut(usize, &Contender) -> Result<T>,
) -> Result<Vec<Samples<T>>> {
    let mut samples: Vec<Samples<T>> = contenders
        .iter()
        .map(|contender| Samples {
            name: contender.name,
            values: Vec::with_capacity(pairs),
        })
        .collect();
    for round in 0..pairs {
        for turn in 0..contenders.len() {
            let at = (round + turn) % contenders.len();
            let contender = &contenders[at];
            let value = measure(round, contender)
                .map_err(|error| format!("{}: {error}", contender.name))?;
            samples[at].values.push(value);
        }
    }
    Ok(samples)
}

/// One figure of each sample.
pub(crate) fn series<T>(samples: &[Samples<T>], figure: impl Fn(&T) -> f64) -> Vec<Series> {
    let of = |samples: &Samples<T>| Series {
        name: samples.name,
        values: samples.values.iter().map(&figure).collect(),
    };
    samples.iter().map(of).collect()
}
