// Structures that the caller fills in; their twins are in src/types.rs.
#pragma once

#include "common.cuh"

// Consecutive query rows and what they see: row `row + r` sees keys[keys_at..keys_at + seen + r].
struct Tile {
  u32 row, rows, keys_at, seen;
};

// Consecutive key rows and what sees them: key row k is seen by the query rows k..until.
struct KeyTile {
  u32 row, rows, until, pad;
};

// Rows of a tile: queries times heads of a group, or keys.
constexpr u32 TILE = 64;

struct Choice {
  double unit;
  float temperature, top_p, min_p;
  u32 top_k;
};
static_assert(sizeof(Choice) == 24, "as src/types.rs has it");

struct Chosen {
  double logp;
  u32 id, broken;
};
static_assert(sizeof(Chosen) == 16, "as src/types.rs has it");
