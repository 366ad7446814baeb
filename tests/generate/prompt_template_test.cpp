#include "lib/generate/prompt_template.h"

#include <doctest/doctest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "tests/support/messages.h"
#include "tests/support/scratch_directory.h"

using namespace ratplus;
using generate::PromptTemplate;
using Json = nlohmann::ordered_json;

namespace {

template <typename F>
std::string message_of(F f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

}  // namespace

TEST_CASE("a prompt is the template with a line's fields") {
  const PromptTemplate both("{{{context}}}\n\nQuestion: {input}\nAnswer {n}:", "t");
  const Json line{{"context", "a {input} b"}, {"input", "é?"}, {"n", 3}, {"list", {1}}};
  CHECK(both.fill(line, "line 1") == "{a {input} b}\n\nQuestion: é?\nAnswer 3:");
  CHECK(message_of([&] { PromptTemplate("{none}", "t").fill(line, "f, line 1"); }) ==
        "f, line 1: has no field \"none\", which the prompt's template names");
  CHECK(test::contains(message_of([&] { PromptTemplate("{list}", "t").fill(line, "f, line 1"); }),
                       "\"list\" is a JSON array"));
  for (const char* bad : {"no field", "{", "{}", "}", "a { b", "{a{b}}"}) {
    CAPTURE(bad);
    CHECK(message_of([&] { PromptTemplate(bad, "t"); }).starts_with("t: "));
  }
}

TEST_CASE("a template is a file's text, or a text under a key of a file") {
  const test::ScratchDirectory scratch;
  const auto path = (scratch / "t").string(), json = (scratch / "t.json").string();
  std::ofstream(path) << "{input}\n\n";
  std::ofstream(json) << R"({"qasper": "Q {input}\n", "other": 3})";
  CHECK(PromptTemplate::read(path).text() == "{input}\n");
  CHECK(PromptTemplate::read(json + "#qasper").text() == "Q {input}\n");
  CHECK(test::contains(message_of([&] { PromptTemplate::read(json + "#other"); }),
                       "no template named \"other\""));
  CHECK(test::contains(message_of([&] { PromptTemplate::read(path + "#qasper"); }), "not JSON"));
  CHECK(test::contains(message_of([&] { PromptTemplate::read(path + "x"); }), "no such file"));
}
