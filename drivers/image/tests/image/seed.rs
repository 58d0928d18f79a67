//! Random numbers with a seed that a failing test prints.

/// A splitmix64 generator.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) const fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// Runs `test` with `count` seeds, or with the one in `FIRN_SEED`; says which
/// one failed.
pub(crate) fn seeds(count: u64, test: impl Fn(u64)) {
    struct Named(u64);
    impl Drop for Named {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("this was FIRN_SEED={}", self.0);
            }
        }
    }
    let given = std::env::var("FIRN_SEED").ok();
    let given = given.map(|seed| seed.parse().expect("FIRN_SEED is a number"));
    let range = given.map_or(0..count, |seed: u64| seed..seed + 1);
    for seed in range {
        let _named = Named(seed);
        test(seed);
    }
}
