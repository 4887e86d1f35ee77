// The executor's own controls, for tests and for the backend's counters. Nothing here exists in CUDA.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

namespace simt {

struct options {
  // Orders warps, lanes and blocks. 0 runs them in ascending order. SLUICE_SIMT_SEED sets it at start.
  uint64_t seed = 0;
  // Multiprocessors of the device: with a kernel's needs they say how many blocks run side by side. SLUICE_SIMT_SMS.
  int multiprocessors = 4;
  // Shared-memory races by last access and barrier epoch. Off where ThreadSanitizer is to find them.
  bool check_races = true;
  // 32-byte sectors and bank conflicts per warp access, at some cost in time. SLUICE_SIMT_COUNT=0 turns it off.
  bool count_accesses = true;
};

options& settings();

// What this thread's launches run as from here on, in place of the settings: several devices, one executor.
// multiprocessors 0: the settings again. What the launches move is charged to `owner`.
void play_as(uint64_t seed, int multiprocessors, const void* owner = nullptr);

// Reads of these two ranges by this thread's launches are counted as kv_bytes_read as well, until the next play_as.
struct watched_range { const void* low = nullptr; size_t bytes = 0; };
void watch_reads(watched_range first, watched_range second);

struct counters {
  uint64_t launches = 0;
  uint64_t bytes_read = 0, bytes_written = 0;  // of global memory, as the lanes asked for them
  uint64_t sectors_read = 0, sectors_written = 0;  // of 32 bytes, each once per warp access
  uint64_t bank_conflicts = 0;  // extra passes of a warp's shared-memory accesses
  uint64_t mma = 0;  // warp-wide matrix instructions
  uint64_t kv_bytes_read = 0;  // of bytes_read, those of watched ranges

  counters& operator+=(const counters& o);
  counters operator-(const counters& o) const;
};

// Of the whole process, whoever launched.
counters& count();

// What an owner's launches have moved since its reset, by kernel (its name as in KERNEL(), without template arguments).
std::map<std::string, counters> account_of(const void* owner);
void reset_account(const void* owner);

// What the last failed kernel did wrong; empty when none failed since the last cudaDeviceReset.
std::string failure_text();

}  // namespace simt
