//! Rows under computation, as kernels want them: which rows see which, in tiles, and the angles of
//! their positions.

use super::buffer::{DeviceBuffer, Scratch};
use super::context::Gpu;
use super::driver::ElementType;
use super::kernels::{Angles, KeyTiles, QueryTiles, ScatterAdd, gather_rows};
use crate::error::LmError;
use crate::ops::{AttentionShape, PrefixGroup, RotaryTable};
use crate::packed::PackedRows;
use gradus_kernels::{KEY_TILE, TILE_QUERIES};
use std::collections::BTreeMap;
use std::ops::Range;

/// Query rows of a tile: all heads that share a key head are taken together.
pub(super) fn tile_rows(heads: AttentionShape) -> usize {
    (TILE_QUERIES as usize / heads.group()).max(1)
}

/// The tiles of query rows, and the list of keys they begin in, on the host.
#[derive(Default)]
pub(super) struct TilePlan {
    tiles: Vec<u32>,
    keys: Vec<u32>,
    seen_max: usize,
}

impl TilePlan {
    /// Rows `rows` from `row` on, the first of which sees `seen` keys of the list from `keys_at`,
    /// and each later one sees one more; in tiles of at most `most` rows.
    pub fn push(&mut self, row: usize, rows: usize, keys_at: usize, seen: usize, most: usize) {
        for from in (0..rows).step_by(most) {
            let tile = [row + from, most.min(rows - from), keys_at, seen + from];
            self.tiles.extend(tile.map(|word| word as u32));
        }
        self.seen_max = self.seen_max.max(seen + rows - 1);
    }

    /// Appends runs of rows to the list of keys; gives where they begin.
    pub fn list(&mut self, runs: impl Iterator<Item = Range<usize>>) -> usize {
        let at = self.keys.len();
        runs.for_each(|run| self.keys.extend(run.start as u32..run.end as u32));
        at
    }

    /// What is to be sent to the device: tiles and keys.
    pub fn words(&self) -> (&[u32], &[u32]) {
        (&self.tiles, &self.keys)
    }

    /// As it was sent; `rows` query rows, keys among `key_rows`.
    pub fn sent(
        &self,
        (tiles, keys): (DeviceBuffer, DeviceBuffer),
        rows: usize,
        key_rows: usize,
    ) -> QueryTiles {
        let (count, seen_max) = (self.tiles.len() / 4, self.seen_max);
        QueryTiles { tiles, keys, count, rows, key_rows, seen_max }
    }
}

/// The parts of a group, each with how many rows of the prefix come before it, its first row, its
/// length, and the first row that no longer sees it.
fn segments(group: &PrefixGroup) -> impl Iterator<Item = (usize, usize, usize, usize)> {
    let mut from = group.rows.start;
    let lengths = std::iter::once(&group.prefix).chain(&group.branches);
    lengths.enumerate().map(move |(index, length)| {
        let first = from;
        from += length;
        match index {
            0 => (0, first, *length, group.rows.end),
            _ => (group.prefix, first, *length, from),
        }
    })
}

fn plans(groups: &[PrefixGroup], heads: AttentionShape) -> (TilePlan, Vec<u32>) {
    let (mut queries, mut keys) = (TilePlan::default(), Vec::new());
    for group in groups {
        let start = group.rows.start;
        for (before, first, length, until) in segments(group) {
            let at = queries.list([start..start + before, first..first + length].into_iter());
            queries.push(first, length, at, before + 1, tile_rows(heads));
            for from in (0..length).step_by(KEY_TILE as usize) {
                let rows = (KEY_TILE as usize).min(length - from);
                keys.extend([first + from, rows, until, 0].map(|word| word as u32));
            }
        }
    }
    (queries, keys)
}

/// Angles of all positions that were read so far. It grows, and is never given back.
#[derive(Default)]
pub(super) struct AngleTable(Option<(Angles, usize)>);

impl AngleTable {
    /// Angles of at least so many positions.
    pub fn reaching(
        &mut self,
        gpu: &Gpu,
        positions: usize,
        frequencies: &[f32],
    ) -> Result<Angles, LmError> {
        if let Some((all, held)) = &self.0
            && positions <= *held
        {
            return Ok(all.clone());
        }
        let held = positions.next_power_of_two().max(256);
        let table = RotaryTable::new((0u32..).take(held), frequencies);
        let (cos, sin) = (DeviceBuffer::of(gpu, table.cos())?, DeviceBuffer::of(gpu, table.sin())?);
        let all = Angles { cos, sin };
        self.0 = Some((all.clone(), held));
        Ok(all)
    }
}

/// Room for the angles of the rows at hand.
#[derive(Default)]
pub(super) struct AngleScratch {
    cos: Scratch,
    sin: Scratch,
}

impl AngleScratch {
    /// Angles of these positions, as they were sent, out of all.
    pub fn rows(
        &mut self,
        all: &Angles,
        positions: &DeviceBuffer,
        half: usize,
    ) -> Result<Angles, LmError> {
        let (gpu, len) = (positions.gpu(), positions.len() * half);
        let (cos, sin) =
            (self.cos.get(gpu, ElementType::F32, len)?, self.sin.get(gpu, ElementType::F32, len)?);
        gather_rows(&all.cos, positions, &cos, half)?;
        gather_rows(&all.sin, positions, &sin, half)?;
        Ok(Angles { cos, sin })
    }
}

/// Packed rows on a device.
pub(super) struct DeviceBatch {
    pub rows: usize,
    pub ids: DeviceBuffer,
    pub angles: Angles,
    pub tiles: QueryTiles,
    pub key_tiles: KeyTiles,
}

impl DeviceBatch {
    /// Sends over what the rows are; they were checked. `angles` has those of all their positions.
    pub fn new(
        rows: &PackedRows,
        heads: AttentionShape,
        (angles, scratch): (&Angles, &mut AngleScratch),
        sent: &mut Scratch,
    ) -> Result<DeviceBatch, LmError> {
        let gpu = angles.cos.gpu();
        let (queries, key_tiles) = plans(&rows.groups, heads);
        let (count, (tiles, keys)) = (rows.ids.len(), queries.words());
        let pieces = [&rows.ids[..], &rows.positions, tiles, keys, &key_tiles];
        let [ids, positions, tiles, keys, key_words] = sent.send(gpu, pieces)?;
        Ok(DeviceBatch {
            rows: count,
            ids,
            angles: scratch.rows(angles, &positions, heads.dim / 2)?,
            tiles: queries.sent((tiles, keys), count, count),
            key_tiles: KeyTiles { tiles: key_words, count: key_tiles.len() / 4 },
        })
    }
}

/// Row i is added to row `targets[i]`: every target once, its rows in order.
pub(super) fn additions(gpu: &Gpu, targets: &[u32]) -> Result<ScatterAdd, LmError> {
    let mut by_target: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (row, target) in (0u32..).zip(targets) {
        by_target.entry(*target).or_default().push(row);
    }
    let ids: Vec<u32> = by_target.keys().copied().collect();
    let sources: Vec<u32> = by_target.values().flatten().copied().collect();
    let mut offsets = vec![0u32];
    for rows in by_target.values() {
        offsets.push(offsets.last().copied().unwrap_or(0) + rows.len() as u32);
    }
    let [targets, offsets, sources] = Scratch::default().send(gpu, [&ids, &offsets, &sources])?;
    Ok(ScatterAdd { targets, offsets, sources })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each row sees by the plan is what the group says.
    #[test]
    fn every_row_sees_its_prefix_and_itself() {
        let heads = AttentionShape { queries: 6, keys: 2, dim: 4 };
        let groups = [
            PrefixGroup { rows: 0..150, prefix: 150, branches: vec![] },
            PrefixGroup { rows: 150..260, prefix: 40, branches: vec![65, 0, 5] },
        ];
        let (plan, keys) = plans(&groups, heads);
        let mut seen = vec![Vec::new(); 260];
        for tile in plan.tiles.chunks_exact(4) {
            assert!(tile[1] as usize * heads.group() <= TILE_QUERIES as usize);
            for row in 0..tile[1] {
                let (at, count) = (tile[2] as usize, (tile[3] + row) as usize);
                seen[(tile[0] + row) as usize] = plan.keys[at..at + count].to_vec();
            }
        }
        let mut by_key = vec![Vec::new(); 260];
        for tile in keys.chunks_exact(4) {
            for key in tile[0]..tile[0] + tile[1] {
                (key..tile[2]).for_each(|row| by_key[row as usize].push(key));
            }
        }
        for row in 0..260u32 {
            let expected: Vec<u32> = match row {
                0..190 => (if row < 150 { 0 } else { 150 }..=row).collect(),
                190..255 => (150..190).chain(190..=row).collect(),
                _ => (150..190).chain(255..=row).collect(),
            };
            assert_eq!(seen[row as usize], expected, "row {row}");
            assert_eq!(by_key[row as usize], expected, "by keys, row {row}");
        }
        assert_eq!(plan.seen_max, 150);
    }
}
