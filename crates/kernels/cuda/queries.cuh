// The queries of a tile and the keys they see, for attention forward and backward.
#pragma once

#include "tiles.cuh"

constexpr float LOG2_E = 1.44269504088896340736f;
constexpr float LN_2 = 0.69314718055994530942f;

// Query m of a tile, 0..count(), is that of a row and a head of the group, heads of one row together.
struct Queries {
  Tile tile;
  u32 key_head, group, dim;

  __device__ __forceinline__ u32 count() const { return tile.rows * group; }
  __device__ __forceinline__ u32 row(u32 m) const { return tile.row + m / group; }
  __device__ __forceinline__ u32 head(u32 m) const { return key_head * group + m % group; }
  // Keys that it sees: those of the tile's list before this one.
  __device__ __forceinline__ u32 seen(u32 m) const {
    return m < count() ? tile.seen + m / group : 0;
  }
  // Keys that one of the tile's rows sees.
  __device__ __forceinline__ u32 keys() const {
    return tile.rows == 0 ? 0 : tile.seen + tile.rows - 1;
  }
  // Keys that one of a warp's queries sees.
  __device__ __forceinline__ u32 seen_by_warp() const {
    u32 first = warp_id() * WARP_ROWS, last = first + WARP_ROWS - 1;
    if (first >= count()) return 0;
    return seen(last < count() ? last : count() - 1);
  }
  // Where it begins in rows `stride` numbers apart; null where there is none.
  template <class P>
  __device__ __forceinline__ P* at(P* rows, u32 stride, u32 m) const {
    if (m >= count()) return nullptr;
    return rows + size_t(row(m)) * stride + size_t(head(m)) * dim;
  }
  // Where its number is in [rows, heads].
  __device__ __forceinline__ size_t number(u32 m, u32 query_heads) const {
    return size_t(row(m)) * query_heads + head(m);
  }
};

// Keys and values: rows of a tile's list.
template <class T>
struct Keys {
  const T *k, *v;
  u32 stride;
  const u32* list;
  u32 at;

  __device__ __forceinline__ Keys(const T* k, const T* v, u32 stride, const u32* keys,
                                  const Queries& queries)
      : k(k), v(v), stride(stride), list(keys + queries.tile.keys_at),
        at(queries.key_head * queries.dim) {}

  // Rows first.. of the list to shared memory; nothing from `end` on.
  template <u32 D>
  __device__ __forceinline__ void load(T* k_to, T* v_to, u32 rows, u32 first, u32 end, u32 dim,
                                       bool wide) const {
    load_rows<T, D>(k_to, rows, dim, wide, [&](u32 r) {
      return first + r < end ? k + size_t(list[first + r]) * stride + at : nullptr;
    });
    load_rows<T, D>(v_to, rows, dim, wide, [&](u32 r) {
      return first + r < end ? v + size_t(list[first + r]) * stride + at : nullptr;
    });
  }
};
