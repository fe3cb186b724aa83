//! A pool of whole numbers: who holds which.
//!
//! New numbers come from the upper part of the range first, so that the lower part stays free for numbers that people
//! choose by hand. A holder may take a number that it has again.

use std::collections::HashMap;

use rand::RngExt;

/// Why a number cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    OutOfRange,
    Taken,
    Full,
}

/// Numbers `first..first + size`, and the uid of each one's holder.
pub(crate) struct Pool {
    first: u128,
    size: u128,
    /// Numbers below this offset are given out only when the rest is used up.
    reserved: u128,
    held: HashMap<u128, String>,
}

impl Pool {
    pub(crate) fn new(first: u128, size: u128, reserved: u128) -> Self {
        Self { first, size, reserved: reserved.min(size), held: HashMap::new() }
    }

    /// Takes a number for `holder`; `Ok(false)`: it had it already.
    pub(crate) fn take(&mut self, number: u128, holder: &str) -> Result<bool, Refused> {
        if number < self.first || number - self.first >= self.size {
            return Err(Refused::OutOfRange);
        }
        match self.held.get(&number) {
            Some(own) if own == holder => Ok(false),
            Some(_) => Err(Refused::Taken),
            None => {
                self.held.insert(number, holder.into());
                Ok(true)
            }
        }
    }

    /// Takes any free number for `holder`.
    pub(crate) fn take_any(&mut self, holder: &str) -> Result<u128, Refused> {
        let found = self.free_in(self.reserved, self.size).or_else(|| self.free_in(0, self.reserved));
        let number = found.ok_or(Refused::Full)?;
        self.held.insert(number, holder.into());
        Ok(number)
    }

    /// A free number with an offset in `from..to`: the first one behind a random point.
    fn free_in(&self, from: u128, to: u128) -> Option<u128> {
        let width = to.checked_sub(from).filter(|width| *width > 0)?;
        let start = rand::rng().random_range(0..width);
        // More probes than holders always meet a free number, if there is one.
        let probes = width.min(self.held.len() as u128 + 1);
        (0..probes)
            .map(|step| self.first + from + (start + step) % width)
            .find(|number| !self.held.contains_key(number))
    }

    /// Gives a number back, if `holder` has it.
    pub(crate) fn give_back(&mut self, number: u128, holder: &str) {
        if self.held.get(&number).is_some_and(|own| own == holder) {
            self.held.remove(&number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_had_once() {
        let mut pool = Pool::new(100, 10, 3);
        let mut got: Vec<u128> = (0..10).map(|holder| pool.take_any(&holder.to_string()).unwrap()).collect();
        assert!(got[..7].iter().all(|number| *number >= 103), "the reserved part comes last: {got:?}");
        got.sort_unstable();
        assert_eq!(got, (100..110).collect::<Vec<_>>());
        assert_eq!(pool.take_any("x"), Err(Refused::Full));
    }

    #[test]
    fn only_the_holder_gives_back() {
        let mut pool = Pool::new(1, 5, 0);
        assert_eq!(pool.take(3, "a"), Ok(true));
        assert_eq!(pool.take(3, "a"), Ok(false));
        assert_eq!(pool.take(3, "b"), Err(Refused::Taken));
        pool.give_back(3, "b");
        assert_eq!(pool.take(3, "b"), Err(Refused::Taken));
        pool.give_back(3, "a");
        assert_eq!(pool.take(3, "b"), Ok(true));
        assert_eq!(pool.take(9, "a"), Err(Refused::OutOfRange));
    }
}
