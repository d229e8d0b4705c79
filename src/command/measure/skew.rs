//! Some rows are asked for more often than others: the distributions of YCSB (Cooper and others, *Benchmarking Cloud
//! Serving Systems with YCSB*, 2010), drawn as in *Quickly Generating Billion-Record Synthetic Databases* (Gray and
//! others, 1994).

use super::random::Random;

/// The skew that YCSB uses.
const THETA: f64 = 0.99;
/// So many items the scrambled distribution is drawn from, whatever the number of rows: YCSB's constant. Its tail is
/// what makes rows that are no favourites equally likely.
const SCRAMBLED_ITEMS: u64 = 10_000_000_000;
/// Terms of the sum that are added one by one; the others are approximated.
const TERMS: u64 = 1000;

/// Item 0 is the most likely, item `n` about `(n + 1)^0.99` times less so.
#[derive(Clone, Debug)]
pub(crate) struct Zipfian {
    items: u64,
    /// The sum of `1 / i^0.99`, `i` from 1 to `items`.
    zeta: f64,
}

impl Zipfian {
    pub(crate) fn new(items: u64) -> Zipfian {
        let items = items.max(1);
        Zipfian { items, zeta: zeta(items) }
    }

    /// Draws from so many items from now on, if there are more than before.
    fn grow(&mut self, items: u64) {
        if items > self.items.saturating_add(TERMS) {
            *self = Zipfian::new(items);
        }
        while self.items < items {
            self.items += 1;
            self.zeta += (self.items as f64).powf(-THETA);
        }
    }

    fn draw(&self, random: &mut Random) -> u64 {
        let unit = random.unit();
        let second = 1.0 + 0.5_f64.powf(THETA);
        match unit * self.zeta {
            at if at < 1.0 || self.items == 1 => 0,
            at if at < second => 1,
            _ => {
                let items = self.items as f64;
                let eta = (1.0 - (2.0 / items).powf(1.0 - THETA)) / (1.0 - second / self.zeta);
                let share = (eta * unit - eta + 1.0).powf(1.0 / (1.0 - THETA));
                ((items * share) as u64).min(self.items - 1)
            }
        }
    }
}

/// By Euler and Maclaurin beyond the first terms.
fn zeta(items: u64) -> f64 {
    let power = |n: u64, exponent: f64| (n as f64).powf(exponent);
    let first = items.min(TERMS);
    let sum: f64 = (1..=first).map(|n| power(n, -THETA)).sum();
    if items == first {
        return sum;
    }
    let integral = (power(items, 1.0 - THETA) - power(first, 1.0 - THETA)) / (1.0 - THETA);
    let ends = (power(items, -THETA) - power(first, -THETA)) / 2.0;
    let slopes = THETA * (power(first, -THETA - 1.0) - power(items, -THETA - 1.0)) / 12.0;
    sum + integral + ends + slopes
}

/// Zipfian, its favourites anywhere among the rows.
#[derive(Clone, Debug)]
pub(crate) struct Scrambled(Zipfian);

impl Scrambled {
    pub(crate) fn new() -> Scrambled {
        Scrambled(Zipfian::new(SCRAMBLED_ITEMS))
    }

    /// One of `rows`, which is not 0.
    pub(crate) fn draw(&self, random: &mut Random, rows: u64) -> u64 {
        fnv1a(self.0.draw(random)) % rows.max(1)
    }
}

/// The latest rows are the favourites.
#[derive(Clone, Debug)]
pub(crate) struct Latest(Zipfian);

impl Latest {
    pub(crate) fn new(rows: u64) -> Latest {
        Latest(Zipfian::new(rows))
    }

    /// One of `rows`, which never become fewer.
    pub(crate) fn draw(&mut self, random: &mut Random, rows: u64) -> u64 {
        self.0.grow(rows);
        self.0.items - 1 - self.0.draw(random)
    }
}

/// Of the number's 8 bytes.
fn fnv1a(number: u64) -> u64 {
    let step = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    number.to_le_bytes().into_iter().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often each of `rows` came in so many draws.
    fn counts(rows: u64, mut draw: impl FnMut(&mut Random) -> u64) -> Vec<u64> {
        let mut random = Random::seeded(7);
        let mut counts = vec![0; rows as usize];
        for _ in 0..200_000 {
            counts[draw(&mut random) as usize] += 1;
        }
        counts
    }

    #[test]
    fn the_sum_is_that_of_ycsb() {
        // ScrambledZipfianGenerator.ZETAN.
        assert!((zeta(SCRAMBLED_ITEMS) - 26.469_028_201_783_02).abs() < 1e-8, "{}", zeta(SCRAMBLED_ITEMS));
        let exact: f64 = (1..=5000).map(|n| f64::from(n).powf(-THETA)).sum();
        assert!((zeta(5000) - exact).abs() < 1e-9);
        let mut grown = Zipfian::new(10);
        grown.grow(5000);
        assert!((grown.zeta - exact).abs() < 1e-9 && grown.items == 5000);
    }

    #[test]
    fn favourites_come_as_often_as_they_are_to() {
        let zipfian = Zipfian::new(1000);
        let found = counts(1000, |random| zipfian.draw(random));
        for (item, count) in found.iter().enumerate().take(2) {
            let expected = 200_000.0 / (item as f64 + 1.0).powf(THETA) / zipfian.zeta;
            assert!((*count as f64 / expected - 1.0).abs() < 0.03, "{item}: {count}, not {expected}");
        }
        // Gray's formula is approximate beyond the first two.
        let upper: u64 = found[500..].iter().sum();
        let expected: f64 = (501..=1000).map(|n| f64::from(n).powf(-THETA)).sum::<f64>() / zipfian.zeta;
        assert!((upper as f64 / 200_000.0 / expected - 1.0).abs() < 0.1, "{upper}");
        assert!(found.iter().filter(|count| **count > 0).count() > 950);
        assert_eq!(counts(1, |random| Zipfian::new(1).draw(random)), [200_000]);
    }

    #[test]
    fn scrambled_favourites_are_spread_and_none_is_left_out() {
        let scrambled = Scrambled::new();
        let found = counts(1000, |random| scrambled.draw(random, 1000));
        assert!(found.iter().all(|count| *count > 0));
        let mut order: Vec<usize> = (0..1000).collect();
        order.sort_by_key(|row| std::cmp::Reverse(found[*row]));
        // The first of ten billion has 1 / 26.47 of all.
        let share = found[order[0]] as f64 / 200_000.0;
        assert!((0.035..0.045).contains(&share), "{share}");
        assert!(order[..10].iter().any(|row| *row < 500) && order[..10].iter().any(|row| *row >= 500));
    }

    #[test]
    fn the_latest_rows_are_asked_for_most() {
        let mut latest = Latest::new(100);
        let found = counts(1000, |random| latest.draw(random, 1000));
        assert!(found[999] > found[998] && found[998] > found[900]);
        assert!(found[900..].iter().sum::<u64>() > found[..500].iter().sum::<u64>() * 3);
    }
}
