// NodeBoard: state that the ranks of a host exchange in shared memory, without messages.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace ratplus::parallel {

/// A short text that one process writes and others may read at any time; a reader may see the half of a new one.
class SharedText {
 public:
  /// kind, or "kind of subject"; what is too long is cut.
  void set(std::string_view kind, std::string_view subject);
  void clear() { text_[0].store('\0', std::memory_order_relaxed); }
  std::string get() const;

 private:
  std::atomic<char> text_[112];
};

/// One rank's place on the board. All zero at first.
struct BoardEntry {
  std::atomic<std::int32_t> process;  ///< its process id; 0: not there yet
  std::atomic<std::int32_t> rank;     ///< of the world
  std::atomic<bool> leaving;          ///< it ends in order, or has said why it does not
  std::atomic<bool> stopped;  ///< a signal ends it, and all others with it; set in the signal's handler
  std::atomic<bool> waiting;  ///< for other ranks
  std::atomic<std::int64_t> at_since;  ///< when `at` was set, in ns of the host's steady clock
  SharedText at;                       ///< what it is computing
  SharedText waits_in;                 ///< the collective that it waits in
};

/// Unmapped with the object; the system frees the memory when the last rank has gone, in whatever way.
class NodeBoard {
 public:
  /// Makes the shared memory for so many ranks and returns its name, by which the others find it; empty where the
  /// system shares none.
  static std::string create(int places);
  /// Takes the name away, once all have opened it.
  static void remove_name(const std::string& name);

  /// Opens it, as the rank in this place. Without a name: memory of this process alone.
  NodeBoard(const std::string& name, int places, int place);
  ~NodeBoard();
  NodeBoard(const NodeBoard&) = delete;
  NodeBoard& operator=(const NodeBoard&) = delete;

  int places() const { return places_; }
  int place() const { return place_; }
  BoardEntry& entry(int place) const { return entries_[place]; }
  BoardEntry& own() const { return entry(place_); }
  /// True for the first of the host's ranks that asks: the one that reports a failure.
  bool may_report() const { return !head_->reported.exchange(true); }

 private:
  /// The head before the entries.
  struct alignas(BoardEntry) Head {
    std::atomic<bool> reported;
  };
  static std::size_t bytes(int places);

  int places_;
  int place_;
  bool shared_ = false;
  Head* head_ = nullptr;
  BoardEntry* entries_ = nullptr;
};

}  // namespace ratplus::parallel
