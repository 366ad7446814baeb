#include "lib/tensorboard/event_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <system_error>

#include "base/error.h"
#include "base/files/new_directories.h"
#include "lib/tensorboard/crc32c.h"
#include "lib/tensorboard/protobuf.h"

namespace ratplus::tensorboard {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view prefix = "events.out.tfevents.";

// Fields of tensorflow/core/util/event.proto and tensorflow/core/framework/summary.proto.
namespace event {
constexpr int wall_time = 1;
constexpr int step = 2;
constexpr int file_version = 3;
constexpr int summary = 5;
constexpr int session_log = 7;
}  // namespace event
namespace session_log {
constexpr int status = 1;
constexpr std::uint64_t start = 1;  // of enum SessionStatus
}  // namespace session_log
namespace summary {
constexpr int value = 1;
constexpr int value_tag = 1;
constexpr int value_simple_value = 2;
}  // namespace summary

double wall_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

Message begin_event(std::int64_t step) {
  Message message;
  message.fixed64(event::wall_time, wall_time());
  message.varint(event::step, static_cast<std::uint64_t>(step));
  return message;
}

std::string host_name() {
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0 || name[0] == '\0') return "localhost";
  return name.data();
}

/// Later than now where a clock that went back, or a start in the same second, would break the order of the names.
std::int64_t next_number(const fs::path& directory) {
  auto number = static_cast<std::int64_t>(wall_time());
  for (const auto& entry : fs::directory_iterator(directory)) {
    const std::string name = entry.path().filename().string();
    std::int64_t of_name = 0;
    if (!name.starts_with(prefix)) continue;
    std::from_chars(name.data() + prefix.size(), name.data() + name.size(), of_name);
    number = std::max(number, of_name + 1);
  }
  return number;
}

std::string little_endian(std::uint64_t value, int bytes) {
  std::string text;
  for (int i = 0; i < bytes; ++i) text += static_cast<char>(value >> (8 * i));
  return text;
}

/// Makes the directory.
fs::path new_file_in(const fs::path& directory) {
  NewDirectories(directory, "log.tensorboard").keep();
  return directory / fmt::format("{}{:010}.{}.{}", prefix, next_number(directory), host_name(), ::getpid());
}

}  // namespace

EventFile::EventFile(const fs::path& directory, std::int64_t first_step)
    : file_(new_file_in(directory), O_EXCL) {
  Message version;
  version.fixed64(event::wall_time, wall_time());
  version.bytes(event::file_version, "brain.Event:2");
  append(version.encoded());
  Message start;
  start.varint(session_log::status, session_log::start);
  Message session = begin_event(first_step);
  session.bytes(event::session_log, start.encoded());
  append(session.encoded());
}

void EventFile::write(std::int64_t step, std::span<const Scalar> scalars) {
  Message values;
  for (const Scalar& scalar : scalars) {
    Message value;
    value.bytes(summary::value_tag, scalar.tag);
    value.fixed32(summary::value_simple_value, static_cast<float>(scalar.value));
    values.bytes(summary::value, value.encoded());
  }
  Message message = begin_event(step);
  message.bytes(event::summary, values.encoded());
  append(message.encoded());
}

/// A record: length, its checksum, the bytes, their checksum.
void EventFile::append(std::string_view event) {
  const std::string length = little_endian(event.size(), 8);
  std::string record = length + little_endian(masked_crc32c(length), 4);
  record += event;
  record += little_endian(masked_crc32c(event), 4);
  file_.add(record);
}

}  // namespace ratplus::tensorboard
