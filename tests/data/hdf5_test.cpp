#include "base/files/hdf5.h"

#include <doctest/doctest.h>

#include <atomic>
#include <cstring>
#include <numeric>
#include <thread>

#include "base/error.h"
#include "base/files/pending_file.h"
#include "tests/data/support.h"
#include "tests/support/file_size_limit.h"

using namespace ratplus;
using namespace ratplus::data;
using ratplus::test::Scratch;

namespace {

template <typename T>
std::vector<T> ramp(std::int64_t count) {
  std::vector<T> values(static_cast<std::size_t>(count));
  std::iota(values.begin(), values.end(), T{1});
  return values;
}

template <typename T>
void check_round_trip(hdf5::File& file, const std::string& name, const hdf5::Layout& layout) {
  const auto values = ramp<T>(1000);
  hdf5::Dataset written = file.create_dataset(name, hdf5::element_of<T>, 1000, layout);
  written.write(0, std::span<const T>(values).first(123));  // two ranges that meet inside a chunk
  written.write(123, std::span<const T>(values).subspan(123));
  const hdf5::Dataset read = file.dataset(name);
  CHECK(read.size() == 1000);
  std::vector<T> middle(700);
  read.read(99, std::span(middle));
  CHECK(std::equal(middle.begin(), middle.end(), values.begin() + 99));
}

}  // namespace

TEST_CASE("HDF5: every element type, chunked, contiguous and compressed") {
  const Scratch scratch;
  auto file = hdf5::File::create(scratch / "a.h5");
  for (const auto& entry : {std::pair{"chunked", hdf5::Layout{.chunk = 64}},
                            std::pair{"contiguous", hdf5::Layout{.checksum = false}},
                            std::pair{"compressed", hdf5::Layout{.chunk = 100, .compression = 6}}}) {
    const auto& name = entry.first;
    const auto& layout = entry.second;
    CAPTURE(name);
    const std::string path = std::string("deep/groups/") + name;
    check_round_trip<float>(file, path + "/float32", layout);
    check_round_trip<double>(file, path + "/float64", layout);
    check_round_trip<std::uint16_t>(file, path + "/uint16", layout);
    check_round_trip<std::uint32_t>(file, path + "/uint32", layout);
    check_round_trip<std::int32_t>(file, path + "/int32", layout);
    check_round_trip<std::int64_t>(file, path + "/int64", layout);
  }
  file.close();
  const auto again = hdf5::File::open(scratch / "a.h5");
  CHECK(again.has("deep/groups/chunked/int64"));
  CHECK_FALSE(again.has("deep/other/chunked"));
  CHECK(again.group("deep/groups").names() ==
        std::vector<std::string>{"chunked", "compressed", "contiguous"});
}

TEST_CASE("HDF5: attributes keep their values, and say when they are missing or of another kind") {
  const Scratch scratch;
  {
    auto file = hdf5::File::create(scratch / "a.h5");
    file.set_attribute("count", std::int64_t{-5'000'000'000});
    file.set_attribute("rate", 0.1);
    file.set_attribute("name", "ünï \U0001F680");
    file.set_attribute("empty", "");
    file.set_attribute("count", std::int64_t{7'000'000'000});  // replaced
    file.close();
  }
  const auto file = hdf5::File::open(scratch / "a.h5");
  CHECK(file.integer_attribute("count") == 7'000'000'000);
  CHECK(file.real_attribute("rate") == 0.1);
  CHECK(file.string_attribute("name") == "ünï \U0001F680");
  CHECK(file.string_attribute("empty").empty());
  CHECK_FALSE(file.has_attribute("other"));
  CHECK(test::contains(test::message_of([&] { file.integer_attribute("other"); }), "no attribute \"other\""));
  CHECK(test::contains(test::message_of([&] { file.integer_attribute("name"); }),
                       "\"name\" is not an integer"));
  CHECK(test::contains(test::message_of([&] { file.string_attribute("rate"); }), "\"rate\" is not a string"));
}

TEST_CASE("HDF5: where in the file a chunk lies") {
  const Scratch scratch;
  const auto values = ramp<float>(1000);
  {
    auto file = hdf5::File::create(scratch / "a.h5");
    file.create_dataset("chunked", hdf5::Element::float32, 1000, {.chunk = 64}).write<float>(0, values);
    file.create_dataset("whole", hdf5::Element::float32, 1000, {.checksum = false}).write<float>(0, values);
    file.close();
  }
  const auto bytes = read_whole_file(scratch / "a.h5");
  const auto file = hdf5::File::open(scratch / "a.h5");
  const auto chunked = file.dataset("chunked");
  for (const std::size_t element : {0, 63, 64, 500, 999}) {
    const auto first = element / 64 * 64;
    float there = 0;
    std::memcpy(&there, bytes.data() + chunked.place_of(static_cast<std::int64_t>(element)), sizeof(float));
    CHECK(there == values[first]);
  }
  CHECK(file.dataset("whole").place_of(0) == -1);
}

TEST_CASE("HDF5: a dataset can be extended, and a range outside is refused") {
  const Scratch scratch;
  const auto values = ramp<float>(10);
  {
    auto file = hdf5::File::create(scratch / "a.h5");
    auto data = file.create_dataset("x", hdf5::Element::float32, 0, {.chunk = 4, .growable = true});
    data.resize(10);
    data.write(0, std::span<const float>(values));
    data.resize(13);
    data.write(10, std::span<const float>(values).first(3));
    file.close();
  }
  const auto data = hdf5::File::open(scratch / "a.h5");
  std::vector<float> tail(4);
  data.dataset("x").read(9, std::span(tail));
  CHECK(tail == std::vector<float>{10, 1, 2, 3});
  CHECK_THROWS_AS(data.dataset("x").read(10, std::span(tail)), std::logic_error);
  CHECK_THROWS_AS(data.dataset("x").read(-1, std::span(tail)), std::logic_error);
}

TEST_CASE("HDF5: a file that could not be written whole is emptied, though HDF5 keeps it open") {
  const Scratch scratch;
  const std::vector<float> values(100000, 1.0F);
  const auto write = [&](const std::filesystem::path& path) {
    auto file = hdf5::File::create(path);
    file.create_dataset("x", hdf5::Element::float32, 100000).write(0, std::span<const float>(values));
    file.close();
  };
  {
    const test::FileSizeLimit full(150000);
    CHECK_THROWS_AS(write(scratch / "a.h5"), Error);
  }
  CHECK(std::filesystem::file_size(scratch / "a.h5") == 0);
  write(scratch / "b.h5");
  CHECK(std::filesystem::file_size(scratch / "b.h5") > 400000);
}

TEST_CASE("HDF5: threads may use their own files at the same time") {
  const Scratch scratch;
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      const auto name = scratch / ("t" + std::to_string(t) + ".h5");
      for (int round = 0; round < 40; ++round) {
        auto file = hdf5::File::create(name);
        std::vector<std::int64_t> values(3000, t * 1000 + round);
        file.create_dataset("x", hdf5::Element::int64, 3000, {.chunk = 128})
            .write(0, std::span<const std::int64_t>(values));
        file.close();
        std::vector<std::int64_t> read(3000);
        hdf5::File::open(name).dataset("x").read(0, std::span(read));
        wrong += read != values;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(wrong == 0);
}
