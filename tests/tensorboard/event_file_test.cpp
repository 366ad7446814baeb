#include "lib/tensorboard/event_file.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <chrono>
#include <fstream>

#include "base/files/pending_file.h"
#include "lib/tensorboard/crc32c.h"
#include "lib/tensorboard/protobuf.h"
#include "tests/support/messages.h"
#include "tests/support/scratch_directory.h"
#include "tests/tensorboard/event_reader.h"

using namespace ratplus;

TEST_CASE("CRC-32C of RFC 3720's examples") {
  CHECK(tensorboard::crc32c("123456789") == 0xE3069283);
  CHECK(tensorboard::crc32c(std::string(32, '\0')) == 0x8A9136AA);
  CHECK(tensorboard::crc32c(std::string(32, '\xff')) == 0x62A8AB43);
  CHECK(tensorboard::crc32c("") == 0);
}

TEST_CASE("varints of protobuf's documentation") {
  tensorboard::Message message;
  message.varint(1, 150);
  CHECK(message.encoded() == "\x08\x96\x01");
  tensorboard::Message far_field;
  far_field.bytes(16, "testing");
  CHECK(far_field.encoded() == "\x82\x01\x07testing");
}

TEST_CASE("a file begins with its version and the start of a session, and holds what was written") {
  const test::ScratchDirectory scratch;
  tensorboard::EventFile file(scratch / "tensorboard", 301);
  const std::vector<tensorboard::Scalar> scalars = {{"loss/64,0,0", 5.25}, {"loss/dense", 1.0 / 3}};
  file.write(std::int64_t{1} << 40, scalars);
  const auto events = test::read_events(file.path());  // while the writer still has it
  REQUIRE(events.size() == 3);
  CHECK(events[0].file_version == "brain.Event:2");
  CHECK(events[1].session_status == 1);
  CHECK(events[1].step == 301);
  CHECK(events[2].step == std::int64_t{1} << 40);
  REQUIRE(events[2].scalars.size() == 2);
  CHECK(events[2].scalars[0].tag == "loss/64,0,0");
  CHECK(events[2].scalars[0].value == 5.25F);
  CHECK(events[2].scalars[1].value == 1.0F / 3);
  const double now =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  for (const auto& event : events) CHECK((event.wall_time <= now && event.wall_time > now - 60));
}

TEST_CASE("the decoder sees a byte that was changed, wherever it is") {
  const test::ScratchDirectory scratch;
  tensorboard::EventFile file(scratch.path(), 1);
  file.write(1, std::vector<tensorboard::Scalar>{{"a", 1}});
  const std::string whole = read_whole_file(file.path());
  for (std::size_t i = 0; i < whole.size(); ++i) {
    std::string damaged = whole;
    damaged[i] ^= 4;
    std::ofstream(scratch / "damaged") << damaged;
    CHECK_THROWS(test::read_events(scratch / "damaged"));
  }
}

TEST_CASE("files of a run's starts sort in their order, whatever the clock does") {
  const test::ScratchDirectory scratch;
  std::ofstream(scratch / "events.out.tfevents.4102444800.elsewhere.77") << "";  // of a clock that was wrong
  std::vector<std::filesystem::path> made;
  for (int start = 0; start < 3; ++start) made.push_back(tensorboard::EventFile(scratch.path(), 1).path());
  const auto files = test::event_files(scratch.path());
  REQUIRE(files.size() == 4);
  for (std::size_t i = 0; i < 3; ++i) CHECK(files[i + 1] == made[i]);
}

TEST_CASE("a directory that cannot be is an error that names it") {
  const test::ScratchDirectory scratch;
  std::ofstream(scratch / "tensorboard") << "a file is in the way";
  CHECK_THROWS_WITH_AS(tensorboard::EventFile(scratch / "tensorboard", 1),
                       doctest::Contains("log.tensorboard"), Error);
}
