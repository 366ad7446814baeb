#include "tests/tensorboard/event_reader.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string_view>

#include "base/files/pending_file.h"

namespace ratplus::test {
namespace {

void check(bool holds, const char* what) {
  if (!holds) throw std::runtime_error(what);
}

/// CRC-32C bit by bit, as polynomial division: no table to be wrong in the same way.
std::uint32_t slow_crc32c(std::string_view bytes) {
  std::uint32_t crc = 0xFFFFFFFF;
  for (const char c : bytes) {
    crc ^= static_cast<std::uint8_t>(c);
    for (int bit = 0; bit < 8; ++bit) crc = crc % 2 == 1 ? crc / 2 ^ 0x82F63B78 : crc / 2;
  }
  return ~crc;
}

std::uint64_t number(std::string_view& bytes, std::size_t count) {
  check(bytes.size() >= count, "a number is cut short");
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < count; ++i)
    value |= std::uint64_t{static_cast<std::uint8_t>(bytes[i])} << (8 * i);
  bytes.remove_prefix(count);
  return value;
}

std::string_view take(std::string_view& bytes, std::uint64_t count) {
  check(bytes.size() >= count, "a piece is cut short");
  const auto piece = bytes.substr(0, count);
  bytes.remove_prefix(count);
  return piece;
}

std::string_view checked(std::string_view& bytes, std::uint64_t count) {
  const auto piece = take(bytes, count);
  auto stored = static_cast<std::uint32_t>(number(bytes, 4));
  stored -= 0xA282EAD8;
  const auto crc = stored << 15 | stored >> 17;
  check(crc == slow_crc32c(piece), "a checksum is wrong");
  return piece;
}

std::uint64_t varint(std::string_view& bytes) {
  std::uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    const auto byte = number(bytes, 1);
    value |= (byte & 0x7F) << shift;
    if (byte < 0x80) return value;
  }
  throw std::runtime_error("a varint is too long");
}

/// Calls visit(field, type, number, bytes) for each field of a message.
template <typename Visit>
void for_each_field(std::string_view message, Visit&& visit) {
  while (!message.empty()) {
    const auto tag = varint(message);
    const auto field = static_cast<int>(tag >> 3);
    switch (tag & 7) {
      case 0:
        visit(field, 0, varint(message), std::string_view());
        break;
      case 1:
        visit(field, 1, number(message, 8), std::string_view());
        break;
      case 2: {
        const auto size = varint(message);
        visit(field, 2, size, take(message, size));
        break;
      }
      case 5:
        visit(field, 5, number(message, 4), std::string_view());
        break;
      default:
        throw std::runtime_error("a field's type is unknown");
    }
  }
}

ReadScalar parse_scalar(std::string_view message) {
  ReadScalar scalar;
  bool valued = false;
  for_each_field(message, [&](int field, int type, std::uint64_t value, std::string_view bytes) {
    if (field == 1 && type == 2) {
      scalar.tag = bytes;
    } else if (field == 2 && type == 5) {
      const auto bits = static_cast<std::uint32_t>(value);
      std::memcpy(&scalar.value, &bits, sizeof bits);
      valued = true;
    } else {
      throw std::runtime_error("a summary's value has another field");
    }
  });
  check(valued && !scalar.tag.empty(), "a scalar without tag or value");
  return scalar;
}

ReadEvent parse_event(std::string_view message) {
  ReadEvent event;
  for_each_field(message, [&](int field, int type, std::uint64_t value, std::string_view bytes) {
    if (field == 1 && type == 1) {
      std::memcpy(&event.wall_time, &value, sizeof value);
    } else if (field == 2 && type == 0) {
      event.step = static_cast<std::int64_t>(value);
    } else if (field == 3 && type == 2) {
      event.file_version = bytes;
    } else if (field == 5 && type == 2) {
      for_each_field(bytes, [&](int f, int t, std::uint64_t, std::string_view one) {
        check(f == 1 && t == 2, "a summary has another field");
        event.scalars.push_back(parse_scalar(one));
      });
    } else if (field == 7 && type == 2) {
      for_each_field(bytes, [&](int f, int t, std::uint64_t status, std::string_view) {
        check(f == 1 && t == 0, "a session log has another field");
        event.session_status = static_cast<int>(status);
      });
    } else {
      throw std::runtime_error("an event has another field");
    }
  });
  return event;
}

}  // namespace

std::vector<ReadEvent> read_events(const std::filesystem::path& file) {
  const std::string content = read_whole_file(file);
  std::string_view bytes = content;
  std::vector<ReadEvent> events;
  while (!bytes.empty()) {
    auto length = checked(bytes, 8);
    events.push_back(parse_event(checked(bytes, number(length, 8))));
  }
  return events;
}

std::vector<std::filesystem::path> event_files(const std::filesystem::path& directory) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) files.push_back(entry.path());
  std::ranges::sort(files);
  return files;
}

}  // namespace ratplus::test
