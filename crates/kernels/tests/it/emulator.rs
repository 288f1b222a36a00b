//! The emulator: what it must report, and that it computes as a GPU would. The kernels are those of
//! cuda/emulate_faults.cu.

use crate::args;
use crate::gpu::{Bf16, Buffer, Stream, gpu, noise, run, try_run};
use gradus_kernels::{Emulator, Launch, attention_launch};

fn launch(blocks: u32, block: u32, shared_bytes: u32) -> Launch {
    Launch { grid: [blocks, 1, 1], block, shared_bytes }
}

#[track_caller]
fn refused(result: Result<(), String>, with: &str) {
    let said = result.expect_err("nothing was reported");
    assert!(said.contains(with), "{said}");
}

#[test]
fn a_barrier_that_not_all_reach_is_reported() {
    let Some(gpu) = gpu() else { return };
    let barrier =
        |threads: u32| try_run(gpu, "fault_half_barrier", launch(2, 64, 0), args![threads]);
    refused(barrier(32), "waits at __syncthreads for thread");
    refused(barrier(63), "for thread 63, which has ended");
    assert_eq!(barrier(64), Ok(()));
    assert_eq!(barrier(0), Ok(()));
}

#[test]
fn a_shuffle_that_a_lane_misses_is_reported() {
    let Some(gpu) = gpu() else { return };
    let mut out = Buffer::<u32>::blank(64);
    let result = try_run(gpu, "fault_half_shuffle", launch(1, 64, 0), args![out.write()]);
    refused(result, "waits at a shuffle for thread");
    let result = try_run(gpu, "fault_other_meeting", launch(1, 32, 0), args![out.write()]);
    refused(result, "__syncthreads");
}

#[test]
fn more_shared_memory_than_asked_for_is_reported() {
    let Some(gpu) = gpu() else { return };
    let fill = |asked, used: u32| try_run(gpu, "fault_shared", launch(3, 32, asked), args![used]);
    assert_eq!(fill(1000, 1000), Ok(()));
    refused(fill(1000, 1001), "behind the 1000 bytes of shared memory");
    refused(fill(0, 1), "behind the 0 bytes");
    refused(fill(161 * 1024, 1), "more shared memory than a block may have");
}

#[test]
fn what_was_not_written_is_not_a_number() {
    let Some(gpu) = gpu() else { return };
    let mut out = Buffer::<f32>::new(&[0.0; 3]);
    run(gpu, "fault_unwritten", launch(5, 32, 16), args![out.write()]);
    assert!(out.get().iter().all(|x| x.is_nan()), "{:?}", out.get());
}

/// Neighbours that do not wait for each other: whoever comes first reads rubbish.
#[test]
fn a_race_shows() {
    let Some(gpu) = gpu() else { return };
    let mut out = Buffer::<u32>::blank(64);
    run(gpu, "fault_race", launch(1, 64, 256), args![out.write()]);
    assert_eq!(out.get().iter().filter(|x| **x == u32::MAX).count(), 32);
}

#[test]
fn blocks_run_in_a_shuffled_order_each_once() {
    let Some(gpu) = gpu() else { return };
    let order = |gpu: Emulator| {
        let mut out = Buffer::<u32>::blank(61);
        let mut first = out.clone();
        first = Buffer::new(&[&[0u32], &first.get()[1..]].concat());
        std::mem::swap(&mut out, &mut first);
        let launch = Launch { grid: [5, 4, 3], block: 32, shared_bytes: 0 };
        run(gpu, "fault_block_order", launch, args![out.write()]);
        assert_eq!(out.get()[0], 60);
        out.get()[1..].to_vec()
    };
    let (one, other) = (order(gpu), order(gpu.with_seed(1)));
    assert_eq!(one, order(gpu), "the order is that of the seed");
    assert_ne!(one, other);
    let in_order: Vec<u32> = (0..60).collect();
    for mut order in [one, other] {
        assert_ne!(order, in_order);
        order.sort_unstable();
        assert_eq!(order, in_order);
    }
}

#[test]
fn lanes_exchange_and_numbers_round_as_on_a_gpu() {
    let Some(gpu) = gpu() else { return };
    let mut out = Buffer::<f64>::blank(6 * 32);
    run(gpu, "fault_lanes", launch(1, 32, 0), args![out.write()]);
    let votes = (0..32).filter(|i| i % 3 == 0).map(|i| 1u32 << i).sum::<u32>();
    for lane in 0..32u32 {
        let found: Vec<f64> = out.get().chunks(32).map(|row| row[lane as usize]).collect();
        let down = if lane + 4 < 32 { lane + 4 } else { lane };
        let up = if lane >= 4 { lane - 4 } else { lane };
        let exchanged = [5, lane ^ 3, down, up, votes].map(f64::from);
        assert_eq!(found[..5], exchanged, "lane {lane}");
        let bf16 = Bf16::rounded(1.0 + lane as f32 / 512.0);
        assert_eq!(found[5], f64::from(f32::from_bits(u32::from(bf16.0) << 16)), "lane {lane}");
    }
}

#[test]
fn tensor_cores_multiply_and_want_aligned_tiles() {
    let Some(gpu) = gpu() else { return };
    // Small whole numbers: every sum is exact.
    let whole = |seed| -> Vec<f32> {
        let mut stream = Stream(seed);
        (0..272).map(|_| stream.below(17) as f32 - 8.0).collect()
    };
    let (a, b) = (whole(1), whole(2));
    let (a_at, b_at) = (Buffer::<Bf16>::of(&a), Buffer::<Bf16>::of(&b));
    let mut out = Buffer::<f32>::blank(256);
    let mut product = |shift: u32| {
        let args = args![a_at.read(), b_at.read(), out.write(), shift];
        try_run(gpu, "fault_product", launch(1, 32, 0), args)
    };
    // Two bytes each: 8 and 16 bytes behind a multiple of 32.
    refused(product(4), "not aligned");
    refused(product(8), "not aligned");
    assert_eq!(product(16), Ok(()));
    for (i, j) in (0..16).flat_map(|i| (0..16).map(move |j| (i, j))) {
        let product = |k: usize| a[16 + i * 16 + k] * b[16 + j * 16 + k];
        assert_eq!(out.get()[i * 16 + j], (0..16).map(product).sum::<f32>());
    }
}

#[test]
fn launches_that_no_gpu_would_take_are_refused() {
    let Some(gpu) = gpu() else { return };
    refused(try_run(gpu, "no_such", launch(1, 32, 0), &[]), "no such kernel");
    refused(try_run(gpu, "fault_shared", launch(1, 32, 0), &[]), "number of arguments");
    for block in [0, 33, 1056] {
        refused(try_run(gpu, "fault_shared", launch(1, block, 0), args![0u32]), "whole warps");
    }
    refused(try_run(gpu, "fault_shared", launch(0, 32, 0), args![0u32]), "no such grid");
}

/// Launches from several threads wait for each other.
#[test]
fn threads_may_launch_at_once() {
    let Some(gpu) = gpu() else { return };
    std::thread::scope(|scope| {
        for seed in 0..4 {
            scope.spawn(move || {
                for _ in 0..20 {
                    let mut out = Buffer::<f64>::blank(6 * 32);
                    run(gpu.with_seed(seed), "fault_lanes", launch(1, 32, 0), args![out.write()]);
                    assert_eq!(out.get()[..32], [5.0; 32]);
                }
            });
        }
    });
}

/// The largest launch there is fits, and noise is not constant: the tests would not notice.
#[test]
fn the_tests_own_tools_work() {
    assert!(attention_launch(1, 1, 1, 256, true).shared_bytes <= 160 * 1024);
    let numbers = noise(1000, 1);
    let mean = numbers.iter().sum::<f32>() / 1000.0;
    assert!(mean.abs() < 0.1 && numbers.iter().any(|x| *x > 1.0), "{mean}");
}
