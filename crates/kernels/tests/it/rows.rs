//! Rows and columns. What only moves numbers must give them exactly.

use crate::args;
use crate::gpu::{Bf16, Buffer, Number, Stream, close, gpu, noise, rounded, run};
use gradus_kernels::{Emulator, each_launch, partial_columns_launch, rows_launch};

/// Rows, width.
const SHAPES: [(usize, usize); 5] = [(1, 3), (6, 8), (5, 33), (3, 576), (700, 130)];

fn columns<T: Number>(gpu: Emulator) {
    for (rows, width) in SHAPES {
        let stride = width + 5;
        let data = noise(rows * stride, 1);
        let from = Buffer::<T>::of(&data);
        let launch = partial_columns_launch(rows as u32, width as u32);
        let mut partial = Buffer::<f32>::blank(launch.grid[0] as usize * width);
        let name = format!("partial_columns_{}", T::NAME);
        run(gpu, &name, launch, args![from.read(), stride, partial.write(), rows, width]);
        let (partial, wide) = (partial.wide(), rounded::<T>(&data));
        let sum =
            |all: &[f64], apart: usize, i: usize| all.chunks(apart).map(|row| row[i]).sum::<f64>();
        let found: Vec<f64> = (0..width).map(|i| sum(&partial, width, i)).collect();
        let expected: Vec<f64> = (0..width).map(|i| sum(&wide, stride, i)).collect();
        close(&name, &found, &expected, 1e-5);
    }
}

fn bias<T: Number>(gpu: Emulator) {
    for (rows, width) in SHAPES {
        let stride = width + 4;
        let (data, more) = (noise(rows * stride, 1), noise(width, 2));
        let (mut y, bias) = (Buffer::<T>::of(&data), Buffer::new(&more));
        let name = format!("add_bias_{}", T::NAME);
        let launch = rows_launch(rows as u32, width as u32);
        run(gpu, &name, launch, args![y.write(), stride, bias.read(), rows, width]);
        let sum = |(i, x): (usize, &f32)| match i % stride {
            column if column < width => T::of(T::of(*x).wide() as f32 + more[column]),
            _ => T::of(*x),
        };
        let expected: Vec<T> = data.iter().enumerate().map(sum).collect();
        assert!(y.get() == expected, "{name}, {rows} rows of {width}");
    }
}

fn gather<X: Number, Y: Number>(gpu: Emulator) {
    for (rows, width) in SHAPES {
        let mut stream = Stream(3);
        let (many, data) = (rows + 9, noise((rows + 9) * width, 1));
        let index: Vec<u32> = (0..rows).map(|_| stream.below(many) as u32).collect();
        let (from, at) = (Buffer::<X>::of(&data), Buffer::new(&index));
        let mut to = Buffer::<Y>::blank(rows * width);
        let name = format!("gather_rows_{}_{}", X::NAME, Y::NAME);
        let launch = rows_launch(rows as u32, width as u32);
        run(gpu, &name, launch, args![from.read(), at.read(), to.write(), rows, width]);
        let row = |at: &u32| &data[*at as usize * width..][..width];
        let numbers = index.iter().flat_map(row).map(|x| Y::of(X::of(*x).wide() as f32));
        assert!(to.get() == numbers.collect::<Vec<_>>(), "{name}, {rows} rows of {width}");
    }
}

fn add<X: Number>(gpu: Emulator) {
    for (many, width) in SHAPES {
        let mut stream = Stream(4);
        let (data, before) = (noise(many * width, 1), noise(many * width, 2));
        // Rows many-1, many-3, ... get 0, 1, 2, 3, 0, ... rows.
        let targets: Vec<u32> = (0..many).rev().step_by(2).map(|row| row as u32).collect();
        let (mut offsets, mut sources) = (vec![0u32], Vec::new());
        for t in 0..targets.len() {
            sources.extend((0..t % 4).map(|_| stream.below(many) as u32));
            offsets.push(sources.len() as u32);
        }
        let from = Buffer::<X>::of(&data);
        let (targets_at, offsets_at, sources_at) =
            (Buffer::new(&targets), Buffer::new(&offsets), Buffer::new(&sources));
        let mut to = Buffer::new(&before);
        let name = format!("add_rows_{}", X::NAME);
        let lists = [from.read(), targets_at.read(), offsets_at.read(), sources_at.read()];
        let launch = rows_launch(targets.len() as u32, width as u32);
        run(gpu, &name, launch, &[&lists[..], args![to.write(), targets.len(), width]].concat());
        let mut expected = before.clone();
        for (t, target) in targets.iter().enumerate() {
            for i in 0..width {
                let list = &sources[offsets[t] as usize..offsets[t + 1] as usize];
                let number = |s: &u32| X::of(data[*s as usize * width + i]).wide() as f32;
                expected[*target as usize * width + i] += list.iter().map(number).sum::<f32>();
            }
        }
        assert!(to.get() == expected, "{name}, {many} rows of {width}");
    }
}

fn put<T: Number>(gpu: Emulator) {
    for (rows, width) in SHAPES {
        let stride = 2 * width + 4;
        let data = noise(rows * stride, 1);
        // Slots in another order, with gaps.
        let slots: Vec<u32> = (0..rows as u32).rev().map(|row| 2 * row + 1).collect();
        let (from, slots_at) = (Buffer::<T>::of(&data), Buffer::new(&slots));
        let mut k = Buffer::<T>::blank((2 * rows + 1) * width);
        let mut v = k.clone();
        let name = format!("store_rows_{}", T::NAME);
        let launch = rows_launch(rows as u32, width as u32);
        let places = [from.read(), from.read_at(width), stride.into(), slots_at.read()];
        run(gpu, &name, launch, &[&places[..], args![k.write(), v.write(), rows, width]].concat());
        let mut expected = [k.clone(), v.clone()].map(|_| vec![T::RUBBISH; (2 * rows + 1) * width]);
        for (row, slot) in slots.iter().enumerate() {
            for (which, to) in expected.iter_mut().enumerate() {
                for i in 0..width {
                    to[*slot as usize * width + i] = T::of(data[row * stride + which * width + i]);
                }
            }
        }
        // As text: rubbish is not equal to itself.
        assert_eq!(format!("{:?}", k.get()), format!("{:?}", expected[0]), "{name}");
        assert_eq!(format!("{:?}", v.get()), format!("{:?}", expected[1]), "{name}");
    }
}

#[test]
fn columns_are_summed_and_rows_get_their_bias() {
    let Some(gpu) = gpu() else { return };
    columns::<f32>(gpu);
    columns::<Bf16>(gpu);
    bias::<f32>(gpu);
    bias::<Bf16>(gpu);
}

#[test]
fn rows_are_gathered_added_and_stored() {
    let Some(gpu) = gpu() else { return };
    gather::<f32, f32>(gpu);
    gather::<Bf16, Bf16>(gpu);
    gather::<Bf16, f32>(gpu);
    add::<f32>(gpu);
    add::<Bf16>(gpu);
    put::<f32>(gpu);
    put::<Bf16>(gpu);
}

#[test]
fn whole_arrays_are_converted_and_filled() {
    let Some(gpu) = gpu() else { return };
    for (n, shift) in [(1, 0), (4, 0), (1027, 0), (1027, 1), (70_000, 2)] {
        let mut data = noise(n, 1);
        data[0] = f32::INFINITY;
        // Halfway between two numbers of bf16: to the even one, down and up.
        if n > 4 {
            (data[1], data[2]) = (1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0);
        }
        let from = Buffer::shifted(&data, shift);
        let mut to = Buffer::<Bf16>::blank(n);
        let launch = each_launch(n as u64);
        run(gpu, "convert_f32_bf16", launch, args![from.read(), to.write(), n as u64]);
        let expected: Vec<Bf16> = data.iter().map(|x| Bf16::rounded(*x)).collect();
        assert!(to.get() == expected, "{n} numbers");
        assert!(n <= 4 || (to.get()[1].0, to.get()[2].0) == (0x3f80, 0x3f82));
        let mut to = Buffer::shifted(&data, shift);
        run(gpu, "fill_f32", launch, args![to.write(), 2.5f32, n as u64]);
        assert!(to.get().iter().all(|x| *x == 2.5));
    }
}
