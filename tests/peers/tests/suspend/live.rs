//! A move while the guest runs: what the host wrote by mappings that it keeps is not
//! seen to be changed, unless somebody says so.

use super::*;

const BYTES: usize = 8 * 4096;

/// Reads `number` times into a buffer of its own each; the requests are answered.
fn read(world: &mut World, number: u64) -> Vec<Token> {
    let tokens = (1..=number).map(|i| {
        let buffer = world.buffer(0, BYTES / 4096);
        let request = Request::data(Op::Read, i * 64, buffer, BYTES);
        world.submit(0, request).expect("room in the queue")
    });
    let tokens = tokens.collect();
    world.settle();
    tokens
}

fn assert_read(done: &[Completion]) {
    for completion in done {
        let buffer = completion.request.buffer.as_ref().expect("a read");
        let mut bytes = vec![0; BYTES];
        buffer.region().copy_out(0, &mut bytes);
        let number = completion.request.sector / 64;
        assert!(bytes == pattern(number, BYTES), "read {number}");
    }
}

#[test]
fn what_was_read_before_a_move_is_there_after_it() {
    for (persistent, taken) in [(true, true), (true, false), (false, true), (false, false)] {
        let config = || Config {
            persistent,
            ..Config::default()
        };
        let mut world = live(config());
        for number in 1..=4 {
            assert_eq!(world.write(0, number * 64, &pattern(number, BYTES)), Ok(()));
        }
        let tokens = read(&mut world, 4);
        let mut done = Vec::new();
        if taken {
            // Somebody has the data, and looks at them later.
            done = completions(&mut *world.vbd(0).front.borrow_mut());
        }
        migrate(&mut world, config());
        assert_read(&done);
        world.settle();
        done.extend(completions(&mut *world.vbd(0).front.borrow_mut()));
        assert_read(&done);
        let results = settle(tokens, done);
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        world.assert_clean();
    }
}
