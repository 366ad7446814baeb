// The arrows between rooms: every include stands beside the list of rooms that CMake builds by (RATPLUS_ROOMS, "room:seen,seen"
// a line), and docs/house.md names each room.
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

const fs::path source = RATPLUS_SOURCE_DIR;

std::string read(const fs::path& file) {
  std::ifstream in(file);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

struct Room {
  int place = 0;  ///< in the order of the list: the lowest room first
  std::set<std::string> sees;
};

std::map<std::string, Room> read_rooms() {
  std::map<std::string, Room> rooms;
  std::istringstream in(read(RATPLUS_ROOMS_FILE));
  for (std::string line; std::getline(in, line);) {
    const auto colon = line.find(':');
    if (colon == std::string::npos) continue;
    Room room{.place = static_cast<int>(rooms.size()), .sees = {}};
    std::istringstream seen(line.substr(colon + 1));
    for (std::string each; std::getline(seen, each, ',');) room.sees.insert(each);
    rooms.emplace(line.substr(0, colon), room);
  }
  return rooms;
}

/// The room that a file is in: the longest that its path begins with; "" for none.
std::string room_of(const std::map<std::string, Room>& rooms, const std::string& path) {
  std::string found;
  for (const auto& [name, room] : rooms) {
    if (path.starts_with(name + "/") && name.size() > found.size()) found = name;
  }
  return found;
}

std::vector<std::string> included(const std::string& text) {
  std::vector<std::string> files;
  std::istringstream in(text);
  const std::string begin = "#include \"";
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with(begin)) continue;
    const auto end = line.find('"', begin.size());
    files.push_back(line.substr(begin.size(), end - begin.size()));
  }
  return files;
}

/// The faults of one file's includes; none in a sound one.
std::vector<std::string> faults_of(const std::map<std::string, Room>& rooms, const std::string& path,
                                   const std::string& text) {
  std::vector<std::string> faults;
  const std::string own = room_of(rooms, path);
  for (const std::string& file : included(text)) {
    const std::string other = room_of(rooms, file);
    if (other.empty()) {
      if (file.find('/') != std::string::npos)
        faults.push_back(path + " includes " + file + ", which is in no room");
    } else if (other != own && !rooms.at(own).sees.contains(other)) {
      faults.push_back(path + " includes " + file + ", and " + own + " does not see " + other);
    }
  }
  return faults;
}

bool is_source(const fs::path& file) {
  static const std::set<std::string> kinds{".h", ".cpp", ".cu", ".cuh"};
  return kinds.contains(file.extension().string());
}

}  // namespace

TEST_CASE("rooms: each sees only rooms that are declared before it") {
  const auto rooms = read_rooms();
  REQUIRE(rooms.size() > 15);
  for (const auto& entry : rooms) {
    const std::string& name = entry.first;
    const Room& room = entry.second;
    for (const std::string& seen : room.sees) {
      INFO(name, " sees ", seen);
      REQUIRE(rooms.contains(seen));
      CHECK(rooms.at(seen).place < room.place);
    }
  }
}

TEST_CASE("rooms: no include points up, or to a room that is not declared to be seen") {
  const auto rooms = read_rooms();
  int files = 0;
  for (const char* top : {"base", "kernels", "parallel", "data", "lib"}) {
    for (const auto& entry : fs::recursive_directory_iterator(source / top)) {
      if (!is_source(entry.path())) continue;
      ++files;
      const std::string path = fs::relative(entry.path(), source).string();
      INFO(path, " is in no room");
      CHECK(!room_of(rooms, path).empty());
      for (const std::string& fault : faults_of(rooms, path, read(entry.path()))) {
        INFO(fault);
        CHECK(false);
      }
    }
  }
  CHECK(files > 300);
}

TEST_CASE("rooms: no room below apps and tests includes from them, and tests may include all") {
  for (const char* top : {"base", "kernels", "parallel", "data", "lib"}) {
    for (const auto& entry : fs::recursive_directory_iterator(source / top)) {
      if (!is_source(entry.path())) continue;
      for (const std::string& file : included(read(entry.path()))) {
        INFO(entry.path().string(), " includes ", file);
        CHECK_FALSE(file.starts_with("apps/"));
        CHECK_FALSE(file.starts_with("tests/"));
      }
    }
  }
}

TEST_CASE("rooms: an include that points up is found") {
  const auto rooms = read_rooms();
  const std::string up = "#include \"lib/model/model.h\"\n";
  CHECK(faults_of(rooms, "kernels/ops.h", up).size() == 1);
  CHECK(faults_of(rooms, "base/error.h", "#include \"base/files/hdf5.h\"\n").size() == 1);
  CHECK(faults_of(rooms, "lib/train/trainer.h", up).empty());
  CHECK(faults_of(rooms, "kernels/ops.h", "#include \"elsewhere/x.h\"\n").size() == 1);
}

TEST_CASE("rooms: docs/house.md has a paragraph on each, in their order, with the rooms that it sees") {
  const auto rooms = read_rooms();
  const std::string page = read(source / "docs/house.md");
  std::map<int, std::string> in_order;
  for (const auto& [name, room] : rooms) in_order.emplace(room.place, name);
  std::size_t at = 0;
  for (const auto& entry : in_order) {
    const std::string& name = entry.second;
    std::string row = "| `" + name + "` | ";
    for (const std::string& seen : rooms.at(name).sees) row += (row.ends_with("| ") ? "" : ", ") + seen;
    INFO("missing, or out of order: ", row);
    const auto found = page.find(row + " |", at);
    CHECK(found != std::string::npos);
    if (found != std::string::npos) at = found;
    INFO("no paragraph: ", name);
    CHECK(page.find("**" + name + "**") != std::string::npos);
  }
}
