// Thousands of mutated examples through every target, the same ones in every run: no crash, no exception but Error, no
// hang, and memory in proportion to the input, whatever it says of its size. `tests/fuzz.sh` looks further, by
// libFuzzer.
#include <doctest/doctest.h>
#include <malloc.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <new>
#include <random>

#include "tests/fuzz/targets.h"

using namespace ratplus;

namespace {

/// Bytes that this program has allocated by new, and the most since most_bytes was last set.
std::size_t live_bytes = 0;
std::size_t most_bytes = 0;

void* allocate(std::size_t size) {
  void* memory = std::malloc(size);
  if (memory == nullptr) throw std::bad_alloc();
  live_bytes += ::malloc_usable_size(memory);
  most_bytes = std::max(most_bytes, live_bytes);
  return memory;
}

void release(void* memory) noexcept {
  if (memory != nullptr) live_bytes -= ::malloc_usable_size(memory);
  std::free(memory);
}

}  // namespace

void* operator new(std::size_t size) {
  return allocate(size);
}
// The library's own calls operator new; a sanitizer's, which would stand in its place, does not.
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  try {
    return allocate(size);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
void operator delete(void* memory) noexcept {
  release(memory);
}
void operator delete(void* memory, const std::nothrow_t&) noexcept {
  release(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
  release(memory);
}

namespace {

using Random = std::mt19937;

std::size_t below(Random& random, std::size_t bound) {
  return bound == 0 ? 0 : random() % bound;
}

/// Numbers at which readers go wrong.
constexpr std::array<std::uint64_t, 12> numbers = {0,
                                                   1,
                                                   0x7f,
                                                   0x80,
                                                   0xff,
                                                   0xffff,
                                                   0x7fffffff,
                                                   0x80000000,
                                                   0xffffffff,
                                                   0x7fffffffffffffff,
                                                   0x8000000000000000,
                                                   0xffffffffffffffff};
constexpr std::array<const char*, 9> words = {"18446744073709551616",
                                              "-1",
                                              "1e300",
                                              "9223372036854775807",
                                              "null",
                                              "[[[[[[[[",
                                              "{\"a\":",
                                              "\xff\xfe",
                                              "0.5"};

void mutate_once(std::string& bytes, const std::vector<std::string>& seeds, Random& random) {
  const auto at = below(random, bytes.size());
  const auto length = std::min(bytes.size() - at, 1 + below(random, 32));
  const auto number = numbers[below(random, numbers.size())];
  switch (random() % 9) {
    case 0:
      if (!bytes.empty()) bytes[at] = static_cast<char>(bytes[at] ^ 1 << random() % 8);
      break;
    case 1:
      if (!bytes.empty()) bytes[at] = static_cast<char>(random());
      break;
    case 2:
      bytes.erase(at, length);
      break;
    case 3:
      bytes.insert(below(random, bytes.size()), bytes.substr(at, length));
      break;
    case 4:
      std::memcpy(bytes.data() + at, &number, std::min(length, std::size_t{1} << random() % 4));
      break;
    case 5:
      bytes.insert(at, words[below(random, words.size())]);
      break;
    case 6:  // in the place of a number in text
      if (const auto digit = bytes.find_first_of("0123456789", at); digit != std::string::npos)
        bytes.replace(digit, 1, words[below(random, words.size())]);
      break;
    case 7:
      if (random() % 4 == 0) bytes.resize(at);
      break;
    default: {
      const auto& other = seeds[below(random, seeds.size())];
      const auto from = below(random, other.size());
      bytes.replace(at, length, other, from, length);
    }
  }
}

double seconds_since(std::chrono::steady_clock::time_point began) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
}

/// Runs mutations of the target's examples. The bound on memory leaves room for fixed buffers and for what a byte of
/// text may become as a parsed value, and none for a size that the input only claims.
void run_mutations(const fuzz::Target& target, int count) {
  constexpr std::size_t fixed = std::size_t{1} << 20;
  constexpr std::size_t a_byte = 256;
  const auto seeds = target.seeds();
  REQUIRE(!seeds.empty());
  for (const auto& seed : seeds) target.run(seed);
  Random random(20);
  double slowest = 0;
  int beyond = 0;
  for (int i = 0; i < count; ++i) {
    std::string bytes = seeds[static_cast<std::size_t>(i) % seeds.size()];
    for (auto left = 1 + below(random, 6); left > 0; --left) mutate_once(bytes, seeds, random);
    const auto began = std::chrono::steady_clock::now();
    most_bytes = live_bytes;
    const auto before = live_bytes;
    CAPTURE(i);
    CHECK_NOTHROW(target.run(bytes));
    beyond += most_bytes - before > fixed + a_byte * bytes.size();
    slowest = std::max(slowest, seconds_since(began));
  }
  CHECK(beyond == 0);
  CHECK(slowest < 5);  // milliseconds, but for a machine that is busy otherwise
}

}  // namespace

TEST_CASE("mutated inputs end with an error or a value") {
  for (const auto& target : fuzz::targets()) {
    CAPTURE(std::string(target.name));
    run_mutations(target, 10'000);
  }
}

TEST_CASE("small inputs that ask for much") {
  std::string deep(100'000, '(');
  std::string lists(100'000, ']');
  std::string copies = "}";
  for (int i = 0; i < 20'000; ++i)
    copies += "q\x01h\x01h\x01\x86";  // tuples of tuples, each twice in the next
  std::string brackets(200'000, '[');
  for (const auto& input : {deep, lists, copies, brackets}) {
    for (const auto& target : fuzz::targets()) target.run(input);
  }
}
