#include "data/prepare/token_pipeline.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>

#include "base/background_thread.h"
#include "base/error.h"
#include "base/files/sha256.h"
#include "base/start_thread.h"
#include "data/dataset/held_out.h"

namespace ratplus::data {
namespace {

constexpr std::int64_t block_bytes = std::int64_t{256} << 10;   ///< of text, tokenized by one thread at once
constexpr std::int64_t bytes_a_thread = std::int64_t{4} << 20;  ///< of text under way
constexpr std::int64_t document_bytes = 64;  ///< a document's own cost, so that empty ones count, too

/// Some documents of a portion on their way.
struct Block {
  const TextPortion* portion = nullptr;
  std::vector<RawDocument> raw;
  std::vector<TokenizedDocument> documents;
  std::int64_t bytes = 0;          ///< of raw text
  std::int64_t portion_bytes = 0;  ///< of the portion's files that are read up to here
  bool last = false;               ///< of its portion
  bool done = false;
  std::exception_ptr error;
};

std::array<std::uint64_t, 2> hash_of(std::string_view text) {
  const std::string hex = sha256_hex(text);
  std::array<std::uint64_t, 2> hash{};
  for (std::size_t i = 0; i < 2; ++i)
    std::from_chars(hex.data() + 16 * i, hex.data() + 16 * (i + 1), hash[i], 16);
  return hash;
}

class Pipeline {
 public:
  Pipeline(const std::vector<const TextPortion*>& portions, const Tokenizer& tokenizer,
           const PipelineSettings& settings)
      : portions_(portions),
        tokenizer_(tokenizer),
        settings_(settings),
        most_bytes_(bytes_a_thread * (settings.threads + 1)) {
    try {
      threads_.push_back(start_thread([this] { read(); }));
      for (int t = 0; t < settings.threads; ++t) threads_.push_back(start_thread([this] { work(); }));
    } catch (...) {
      stop();  // those that have started
      throw;
    }
  }
  ~Pipeline() { stop(); }
  Pipeline(const Pipeline&) = delete;
  Pipeline& operator=(const Pipeline&) = delete;

  /// The next block in order, tokenized; null at the end. Waits some milliseconds at most: then `waited` is set.
  std::shared_ptr<Block> take(bool& waited) {
    std::unique_lock lock(mutex_);
    const auto ready = [&] { return order_.empty() ? all_read_ : order_.front()->done; };
    waited = !changed_.wait_for(lock, std::chrono::milliseconds(100), ready);
    if (waited || order_.empty()) return nullptr;
    const auto block = order_.front();
    order_.pop_front();
    bytes_ -= block->bytes;
    changed_.notify_all();
    return block;
  }

 private:
  void stop() {
    {
      const std::lock_guard lock(mutex_);
      stopped_ = true;
    }
    changed_.notify_all();
  }

  void read() {
    leave_signals_to_main_thread();
    auto block = std::make_shared<Block>();
    try {
      for (const TextPortion* portion : portions_) {
        TextSource source(portion->parts, settings_.text_key);
        const auto begin = [&] {
          block = std::make_shared<Block>();
          block->portion = portion;
        };
        begin();
        for (RawDocument raw; source.next(raw);) {
          block->bytes += std::ssize(raw.bytes) + document_bytes;
          block->raw.push_back(std::move(raw));
          raw = {};
          if (block->bytes < block_bytes) continue;
          block->portion_bytes = source.bytes_done();
          if (!add(block)) return;
          begin();
        }
        block->portion_bytes = portion->bytes;
        block->last = true;
        if (!add(block)) return;
      }
    } catch (...) {
      block->error = std::current_exception();
      block->bytes = 0;
      add(block);
    }
    const std::lock_guard lock(mutex_);
    all_read_ = true;
    changed_.notify_all();
  }

  /// Waits until there is room, which there is for any block where none is under way; false when all is to end.
  bool add(const std::shared_ptr<Block>& block) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return stopped_ || bytes_ == 0 || bytes_ + block->bytes <= most_bytes_; });
    if (stopped_) return false;
    bytes_ += block->bytes;
    order_.push_back(block);
    waiting_.push_back(block);
    changed_.notify_all();
    return true;
  }

  void work() {
    leave_signals_to_main_thread();
    while (true) {
      std::shared_ptr<Block> block;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return stopped_ || all_read_ || !waiting_.empty(); });
        if (stopped_ || waiting_.empty()) {
          if (stopped_ || all_read_) return;
          continue;
        }
        block = waiting_.front();
        waiting_.pop_front();
      }
      tokenize(*block);
      const std::lock_guard lock(mutex_);
      block->done = true;
      changed_.notify_all();
    }
  }

  void tokenize(Block& block) const {
    try {
      for (RawDocument& raw : block.raw) {
        const DocumentPlace place = raw;
        const Document document = parse_document(std::move(raw), settings_.text_key);
        TokenizedDocument& out = block.documents.emplace_back();
        out.repaired = document.repaired;
        out.place = place;
        out.empty = document.text.empty();
        if (out.empty) continue;
        out.position = held_out_position(document.text);
        if (settings_.hash_texts) out.text_hash = hash_of(document.text);
        out.tokens.reserve(document.text.size() / 3);  // more than most texts have
        encode(place, document.text, out.tokens);
      }
    } catch (...) {
      if (!block.error) block.error = std::current_exception();
    }
    block.raw.clear();
  }

  void encode(const DocumentPlace& place, std::string_view text, std::vector<std::int32_t>& tokens) const {
    try {
      tokenizer_.encode(text, tokens);
    } catch (const Error& error) {
      fail("{}: {}", to_string(place), error.what());
    }
  }

  const std::vector<const TextPortion*>& portions_;
  const Tokenizer& tokenizer_;
  const PipelineSettings& settings_;
  const std::int64_t most_bytes_;

  std::mutex mutex_;  // of all that follows
  std::condition_variable changed_;
  std::deque<std::shared_ptr<Block>> order_;    ///< read and not taken yet
  std::deque<std::shared_ptr<Block>> waiting_;  ///< of these, those that no thread has begun
  std::int64_t bytes_ = 0;                      ///< of text in `order_`
  bool all_read_ = false;
  bool stopped_ = false;

  std::vector<std::jthread> threads_;  // last: joined before what they use is destroyed
};

}  // namespace

void tokenize_portions(const std::vector<const TextPortion*>& portions, const Tokenizer& tokenizer,
                       const PipelineSettings& settings, const PipelineSink& sink) {
  require(settings.threads > 0, "{} threads", settings.threads);
  Pipeline pipeline(portions, tokenizer, settings);
  std::int64_t read = 0;
  while (true) {
    bool waited = false;
    const auto block = pipeline.take(waited);
    if (waited) {
      sink.progress(read);
      continue;
    }
    if (block == nullptr) return;
    for (const TokenizedDocument& document : block->documents) sink.document(document);
    if (block->error) std::rethrow_exception(block->error);
    read = block->portion_bytes;
    if (block->last) {
      sink.portion_done(*block->portion);
      read = 0;
    }
    sink.progress(read);
  }
}

}  // namespace ratplus::data
