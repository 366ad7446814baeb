// RequestLines: a file's lines as requests for answers.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "lib/generate/generator.h"
#include "lib/generate/line_work.h"
#include "lib/generate/prompt_template.h"

namespace ratplus::generate {

/// How lines and results look.
struct LineForm {
  /// Fills the prompt from a line's fields, of which none is a setting then; "id" or "_id" is the line's id.
  std::optional<PromptTemplate> prompt = {};
  std::vector<std::string> kept =
      {};  ///< fields that every line has, and its result, too; settings stay settings
  std::string text_field = "text";  ///< the result's name of an answer's text

  /// Throws Error, naming the option, where a field that is kept, or the answer's text, would take the place of another one of
  /// the result.
  void check() const;
  /// What differs from the usual, for LineJob::identity; null: nothing.
  nlohmann::ordered_json to_json() const;
};

/// Lines {"prompt": text} or {"tokens": [...]}, with the fields of set_field, "id" and "meta", which go to the result as they
/// are. docs/generation.md describes both lines.
class RequestLines : public LineWorker {
 public:
  /// `settings` are those of fields that a line does not have; a line without a seed takes theirs plus its number from 0.
  RequestLines(const InputLines& input, const Settings& settings, const ModelText& text,
               infer::Engine& engine, LineForm form = {});

  void check(std::size_t line) const override { parse(line); }
  std::int64_t room() const override;
  void add(std::size_t line) override;
  bool idle() const override { return generator_.idle(); }
  void step(const Done& done) override;
  std::int64_t tokens() const override { return tokens_; }

 private:
  struct Parsed {
    GenerationRequest request;
    nlohmann::ordered_json id, meta;  ///< null: none
    nlohmann::ordered_json kept = nlohmann::ordered_json::object();
    bool given_as_tokens = false;
  };

  Parsed parse(std::size_t line) const;
  nlohmann::ordered_json result(const Parsed& parsed, const std::vector<Answer>& answers) const;
  nlohmann::ordered_json result(const Parsed& parsed, const Answer& answer) const;

  const InputLines& input_;
  Settings settings_;
  const ModelText& text_;
  infer::Engine& engine_;
  Generator generator_;
  LineForm form_;
  struct Line {
    std::size_t line = 0;
    Parsed parsed;
  };
  std::map<std::int64_t, Line> lines_;  ///< by the generator's number
  std::int64_t tokens_ = 0;
};

}  // namespace ratplus::generate
