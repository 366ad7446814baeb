#include "parallel/node_board.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <iterator>
#include <random>

#include "base/error.h"

namespace ratplus::parallel {

static_assert(std::atomic<std::int64_t>::is_always_lock_free && std::atomic<bool>::is_always_lock_free);

void SharedText::set(std::string_view kind, std::string_view subject) {
  std::size_t length = 0;
  const auto add = [&](std::string_view words) {
    for (const char c : words) {
      if (length + 1 < std::size(text_)) text_[length++].store(c, std::memory_order_relaxed);
    }
  };
  add(kind);
  if (!subject.empty()) {
    add(" of ");
    add(subject);
  }
  text_[length].store('\0', std::memory_order_relaxed);
}

std::string SharedText::get() const {
  std::string text;
  for (const auto& c : text_) {
    const char read = c.load(std::memory_order_relaxed);
    if (read == '\0') break;
    text += read;
  }
  return text;
}

std::size_t NodeBoard::bytes(int places) {
  return sizeof(Head) + static_cast<std::size_t>(places) * sizeof(BoardEntry);
}

std::string NodeBoard::create(int places) {
  const std::string name = fmt::format("/ratplus-{}-{:08x}", getpid(), std::random_device()());
  const int file = shm_open(name.c_str(), O_CREAT | O_EXCL | O_RDWR, S_IRUSR | S_IWUSR);
  if (file < 0) return "";
  // Allocated and not only sized: in a full /dev/shm, touching memory that was never there would be SIGBUS.
  const bool sized = posix_fallocate(file, 0, static_cast<off_t>(bytes(places))) == 0;
  close(file);
  if (sized) return name;
  shm_unlink(name.c_str());
  return "";
}

void NodeBoard::remove_name(const std::string& name) {
  if (!name.empty()) shm_unlink(name.c_str());
}

NodeBoard::NodeBoard(const std::string& name, int places, int place) : places_(places), place_(place) {
  // Zeroed, and zero is the first state of all that is in it: no constructor needs to run.
  int file = name.empty() ? -1 : shm_open(name.c_str(), O_RDWR, 0);
  shared_ = file >= 0;
  const int flags = shared_ ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
  void* memory = mmap(nullptr, bytes(places), PROT_READ | PROT_WRITE, flags, file, 0);
  if (shared_) close(file);
  if (memory == MAP_FAILED) fail("cannot map {} bytes of memory", bytes(places));
  head_ = static_cast<Head*>(memory);
  entries_ = reinterpret_cast<BoardEntry*>(head_ + 1);
}

NodeBoard::~NodeBoard() {
  munmap(head_, bytes(places_));
}

}  // namespace ratplus::parallel
