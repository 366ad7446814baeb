#include "lib/generate/continuation_lines.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "base/utf8.h"
#include "lib/generate/json_values.h"

namespace ratplus::generate {
namespace {

using Json = nlohmann::ordered_json;

/// Whether Python's str.rstrip() takes the character.
bool is_white_space(std::string_view character) {
  if (character.size() == 1) {
    const char c = character.front();
    return c == ' ' || (c >= '\x09' && c <= '\x0d') || (c >= '\x1c' && c <= '\x1f');
  }
  static constexpr std::string_view others[] = {
      "\u0085", "\u00a0", "\u1680", "\u2000", "\u2001", "\u2002", "\u2003", "\u2004", "\u2005", "\u2006",
      "\u2007", "\u2008", "\u2009", "\u200a", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000"};
  return std::ranges::count(others, character) > 0;
}

/// Bytes of the text without the white space at its end.
std::size_t without_end(std::string_view text) {
  std::size_t end = 0;
  for (std::size_t at = 0; at < text.size();) {
    const auto bytes = static_cast<std::size_t>(scan_utf8(text.substr(at)).bytes);
    if (!is_white_space(text.substr(at, bytes))) end = at + bytes;
    at += bytes;
  }
  return end;
}

/// Characters from the first that is not white space: lm-evaluation-harness divides by the length of the choice, which is
/// the continuation without the blank that joins it to the context.
std::int64_t characters_of_choice(std::string_view text) {
  std::int64_t count = 0;
  for (std::size_t at = 0; at < text.size();) {
    const auto bytes = static_cast<std::size_t>(scan_utf8(text.substr(at)).bytes);
    if (count > 0 || !is_white_space(text.substr(at, bytes))) ++count;
    at += bytes;
  }
  return count;
}

std::vector<std::int32_t> end_of_text(const ModelText& model, const std::string& where) {
  if (model.end_of_text < 0) {
    fail(
        "{}: the context is empty, and no token is known that ends, and so begins, a text; give "
        "--end-of-text TOKEN",
        where);
  }
  return {model.end_of_text};
}

Continuation joined(std::vector<std::int32_t> context, const std::vector<std::int32_t>& continuation) {
  const auto first = std::ssize(context);
  context.insert(context.end(), continuation.begin(), continuation.end());
  return {std::move(context), first};
}

}  // namespace

Continuation encode_continuation(const std::string& context, const std::string& continuation,
                                 const ModelText& model, const std::string& where) {
  const auto& tokenizer = model.required();
  const auto kept = without_end(context);
  std::vector<std::int32_t> before, whole;
  if (kept > 0) tokenizer.encode(std::string_view(context).substr(0, kept), before);
  tokenizer.encode(context + continuation, whole);
  if (before.empty()) return joined(end_of_text(model, where), whole);
  whole.erase(whole.begin(), whole.begin() + std::min(std::ssize(before), std::ssize(whole)));
  return joined(std::move(before), whole);
}

ContinuationLines::ContinuationLines(const InputLines& input, Cut cut, const ModelText& text,
                                     infer::Scorer& scorer)
    : input_(input), cut_(cut), text_(text), scorer_(scorer) {}

Continuation ContinuationLines::fitted(Continuation continuation, const std::string& where) const {
  const auto scored = std::ssize(continuation.tokens) - continuation.first;
  const auto most = scorer_.settings().tokens;
  if (scored < 1)
    fail("{}: the continuation has no token of its own; give a longer one, or token numbers", where);
  if (std::ssize(continuation.tokens) <= most) return continuation;
  if (cut_ == Cut::none || scored >= most) {
    fail("{}: a context of {} tokens and a continuation of {} are {}, and a sequence has at most {}; {}",
         where, continuation.first, scored, std::ssize(continuation.tokens), most,
         scored >= most ? "give a shorter continuation, or more tokens (--length)"
                        : "give --cut left or --cut middle to shorten contexts, or more tokens (--length)");
  }
  const auto border = continuation.tokens.begin() + continuation.first;
  const std::vector<std::int32_t> last(border, continuation.tokens.end());
  return joined(cut_tokens({continuation.tokens.begin(), border}, most - scored, cut_), last);
}

ContinuationLines::Parsed ContinuationLines::parse(std::size_t line) const {
  const auto where = input_.where(line);
  const Json json = input_.object(line);
  for (const auto& [name, value] : json.items()) {
    static constexpr std::string_view known[] = {
        "context", "continuation", "context_tokens", "continuation_tokens", "id", "meta"};
    if (std::ranges::count(known, std::string_view(name)) == 0) {
      fail(
          "{}: there is no field \"{}\"; a line has context and continuation (texts), or context_tokens and "
          "continuation_tokens (lists of numbers), id, and meta (copied to the result)",
          where, beginning(name));
    }
  }
  const bool texts = json.contains("context") && json.contains("continuation");
  const bool tokens = json.contains("context_tokens") && json.contains("continuation_tokens");
  if (texts == tokens || json.contains("context") != texts || json.contains("context_tokens") != tokens ||
      json.contains("continuation") != texts || json.contains("continuation_tokens") != tokens) {
    fail("{}: give \"context\" and \"continuation\", or \"context_tokens\" and \"continuation_tokens\"",
         where);
  }
  Parsed parsed;
  Continuation continuation;
  if (texts) {
    if (!text_.tokenizer) fail("{}: a text needs a tokenizer, and {}", where, text_.missing);
    const auto text = text_from_json(json, "continuation", where);
    continuation = encode_continuation(text_from_json(json, "context", where), text, text_, where);
    parsed.characters = characters_of_choice(text);
  } else {
    auto context = tokens_from_json(json, "context_tokens", where);
    if (context.empty()) context = end_of_text(text_, where);
    continuation = joined(std::move(context), tokens_from_json(json, "continuation_tokens", where));
  }
  continuation = fitted(std::move(continuation), where);
  parsed.request = {.tokens = std::move(continuation.tokens), .first = continuation.first, .tops = 1};
  scorer_.check(parsed.request, where);
  parsed.id = json.contains("id") ? json["id"] : Json(input_.number(line));
  if (json.contains("meta")) parsed.meta = json["meta"];
  input_.check_copied(line, "id", parsed.id);
  input_.check_copied(line, "meta", parsed.meta);
  return parsed;
}

std::int64_t ContinuationLines::room() const {
  return std::max<std::int64_t>(most_ - std::ssize(queue_), 0);
}

void ContinuationLines::step(const Done& done) {
  std::vector<std::size_t> lines;
  std::vector<Parsed> parsed;
  std::vector<infer::ScoreRequest> requests;
  for (std::int64_t rows = 0; !queue_.empty(); queue_.pop_front()) {
    auto next = parse(queue_.front());
    rows += std::ssize(next.request.tokens);
    if (!lines.empty() && rows > scorer_.settings().rows) break;
    lines.push_back(queue_.front());
    requests.push_back(next.request);
    parsed.push_back(std::move(next));
  }
  constexpr std::int64_t most = 1 << 14;
  if (queue_.empty()) most_ = std::min(2 * most_, most);
  scorer_.score(requests, [&](std::size_t i, const infer::Scored& scored) {
    const auto& [request, id, meta, characters] = parsed[i];
    double sum = 0;
    for (const float value : scored.log_probability) sum += double{value};
    if (!std::isfinite(sum)) {
      fail(
          "{}: the model's logits are not finite; its weights may be damaged (`ratplus inspect` verifies a "
          "checkpoint)",
          input_.where(lines[i]));
    }
    Json json;
    json["id"] = id;
    json["log_likelihood"] = sum;
    json["greedy"] = scored.greedy(request);
    json["tokens"] = scored.log_probability.size();
    if (characters) json["characters"] = *characters;
    if (!meta.is_null()) json["meta"] = meta;
    tokens_ += std::ssize(request.tokens);
    done(lines[i], std::move(json));
  });
}

void ContinuationSums::add(const Json& result) {
  ++continuations;
  tokens += result.at("tokens").get<std::int64_t>();
  if (result.at("greedy").get<bool>()) ++greedy;
  log_likelihood += result.at("log_likelihood").get<double>();
}

double ContinuationSums::perplexity() const {
  return std::exp(-log_likelihood / static_cast<double>(tokens));
}

}  // namespace ratplus::generate
