#include "lib/report/page.h"

#include <doctest/doctest.h>
#include <fmt/core.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>

#include "base/parse_json.h"
#include "lib/report/panel_chart.h"
#include "lib/report/panels.h"
#include "lib/report/svg.h"
#include "tests/report/run_fixture.h"
#include "tests/report/xml.h"

namespace ratplus::report {
namespace {

constexpr double unknown = std::numeric_limits<double>::quiet_NaN();

/// A joint run with every quantity that a page shows.
RunMetrics whole_run(const std::string& name, int steps) {
  RunMetrics run;
  run.directory = "runs/" + name;
  run.name = name;
  run.steps = 2 * steps;
  for (int step = 1; step <= steps; ++step) {
    const double loss = 4 + 4 * std::exp(-5.0 * step / steps) + 0.05 * std::sin(11.0 * step);
    run.add_step({step, step * 1000, {{"64,0,0", loss + 0.1}, {"dense", loss}}});
    for (const char* pattern : {"64,0,0", "dense"})
      run.add("gradient_norm", pattern, step, 0.5 + (step == 7 ? 40 : 0));
    run.add("learning_rate", "", step, 1e-3);
    run.add("tokens_per_second", "", step, 12'345);
    run.add("share_of_peak", "", step, 0.412);
    run.add("memory_bytes", "", step, 71.5 * 0x1p30);
    run.add("data_wait_share", "", step, 0.002);
    run.add("slowest_rank", "", step, 3);
    if (step % 10 == 0) {
      run.add_validation({step, step * 1000, {{"dense", loss}, {"16,256,4", loss + 0.2}}});
      run.add("checkpoint_stall_seconds", "", step, 0.25);
    }
  }
  return run;
}

JobSettings job(const std::string& text) {
  const RunFixture run("job");
  run.write("job.toml", text);
  return read_job_settings(run.directory());
}

const JobSettings plain_job = job("[job]\nkind = \"pretrain\"\n\n[data]\nbatch = 8\n");

std::string page_of(const std::vector<RunMetrics>& runs) {
  return make_page(runs, std::vector(runs.size(), plain_job), 1'700'000'000);
}

nlohmann::json curves_of(const std::string& page) {
  const std::string begin = "id=\"curves\">";
  const auto at = page.find(begin) + begin.size();
  return parse_json(page.substr(at, page.find("</script>", at) - at));
}

}  // namespace

TEST_CASE("the reader of markup is strict") {
  CHECK(xml_error("<!DOCTYPE html>\n<a b=\"1\"><c/>&amp;<d><![CDATA[<&]]></d></a>\n") == "");
  for (const char* bad : {"<a><b></a></b>", "<a>", "<a b=1/>", "<a b=\"1\" b=\"2\"/>", "<a>&nbsp;</a>",
                          "<a>&</a>", "<a/><b/>", "<a/>text", "<a>\x1b</a>", "<a b=\"<\"/>", "<a", ""}) {
    CAPTURE(bad);
    CHECK(xml_error(bad) != "");
  }
}

TEST_CASE("a page is well-formed, stands alone, and has every quantity") {
  const std::string page = page_of({whole_run("pretrain", 100)});
  CHECK(xml_error(page) == "");
  for (const char* outside : {"http:", "https:", "//cdn", "src=", "href=", "url(", "@import", "fetch("}) {
    CAPTURE(outside);
    CHECK(count(page, outside) == 0);
  }
  for (const char* part :
       {"Training loss", "Validation loss", "Learning rate", "Gradient norm", "Tokens a second",
        "Share of peak", "Memory of the first rank", "Wait for data", "Checkpoints", "Slowest rank", "12.3k",
        "41.2%", "71.5 GiB", "D\u00a0=\u00a016, W\u00a0=\u00a0256, I\u00a0=\u00a04", "100 of 200 (50%)",
        "kind = &quot;pretrain&quot;", "2023-11-14 22:13"}) {
    CAPTURE(part);
    CHECK(count(page, part) > 0);
  }
  CHECK(count(page, "<figure>") == 10);
}

TEST_CASE("the script's numbers are the curves of the figures") {
  const RunMetrics run = whole_run("pretrain", 30);
  const auto curves = curves_of(page_of({run}));
  CHECK(curves["tokens"] == 30'000);
  CHECK(curves["tokens_per_step"] == 1000);
  REQUIRE(curves["panels"].size() == 10);
  const auto& loss = curves["panels"][0];
  CHECK(loss["unit"] == "nats");
  REQUIRE(loss["lines"].size() == 2);
  CHECK(loss["lines"][1]["x"][29] == 30'000);
  const double last = run.find("loss", "dense")->last();
  CHECK(loss["lines"][1]["y"][29].get<double>() == doctest::Approx(last).epsilon(1e-5));
}

TEST_CASE("a page stays small however long the runs are, and keeps their extremes") {
  RunMetrics run = whole_run("long", 300'000);
  const std::string page = page_of({run});
  CHECK(page.size() < 500'000);
  CHECK(xml_error(page) == "");
  CHECK(run.find("gradient_norm", "dense")->extremes().size() > 1000);
  const auto panels = make_panels(std::span(&run, 1), 400);
  CHECK(range_of(panels[3]).high == 40.5);  // one step of 300,000
  CHECK(panels[3].logarithmic);
}

TEST_CASE("several runs: what differs, and what only some have") {
  RunMetrics adapted = whole_run("adapted", 50);
  const auto other = job("[job]\nkind = \"adapt\"\nfrom = \"runs/<a>&\"\n\n[data]\nbatch = 8\n");
  const std::string page = make_page({whole_run("pretrain", 100), adapted}, {plain_job, other}, 0);
  CHECK(xml_error(page) == "");
  const std::string differences = page.substr(page.find("The keys in which"), 2000);
  CHECK(differences.find(">job.kind<") != std::string::npos);
  CHECK(differences.find(">job.from<") != std::string::npos);
  CHECK(differences.find("runs/&lt;a&gt;&amp;") != std::string::npos);
  CHECK(differences.find(">data.batch<") == std::string::npos);
  CHECK(make_page({adapted, adapted}, {other, other}, 0).find("All runs have the same settings") !=
        std::string::npos);
}

TEST_CASE("many runs with the same patterns are compared pattern by pattern") {
  std::vector<RunMetrics> runs;
  for (int i = 0; i < 4; ++i) runs.push_back(whole_run(fmt::format("run{}", i), 20));
  const auto panels = make_panels(runs, 400);
  std::set<std::string> titles;
  for (const Panel& panel : panels) titles.insert(panel.title);
  CHECK(titles.contains("Validation loss, dense"));
  CHECK(titles.contains("Validation loss, D = 16, W = 256, I = 4"));
  CHECK_FALSE(titles.contains("Validation loss"));
  for (const Panel& panel : panels) {
    if (panel.title != "Validation loss, dense") continue;
    REQUIRE(panel.lines.size() == 4);
    CHECK(panel.lines[2].label == "run2");
  }
}

TEST_CASE(
    "five runs and more: names are shortened where they repeat, differ still, and are listed once in full") {
  const std::string beginning(40, 'a'), end(40, 'z');
  std::vector<RunMetrics> runs;
  for (int i = 0; i < 5; ++i) runs.push_back(whole_run(fmt::format("{}-seed{}-{}", beginning, i, end), 20));
  const auto count = [](const std::string& text, const std::string& part) {
    int found = 0;
    for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
    return found;
  };
  // They differ in their middle alone, which stays therefore.
  const std::string whole = page_of(runs);
  CHECK(xml_error(whole) == "");
  CHECK(count(whole, "<h1>5 runs</h1>") == 1);
  std::set<std::string> heads;
  const std::regex head("<th scope=\"col\"[^>]*>([^<]+)</th>");
  for (std::sregex_iterator at(whole.begin(), whole.end(), head), none; at != none; ++at)
    heads.insert((*at)[1]);
  CHECK(heads.size() == 5);
  for (int i = 0; i < 5; ++i) runs[static_cast<std::size_t>(i)].name = fmt::format("{}-{}", beginning, i);
  const std::string page = page_of(runs);
  CHECK(xml_error(page) == "");
  for (int i = 0; i < 5; ++i) {
    const auto& name = runs[static_cast<std::size_t>(i)].name;
    CHECK(count(page, fmt::format(" title=\"{}\">aaaaaaaaa\u2026aaaaaaaa-{}</th>", name, i)) >= 2);
    CHECK(count(page, fmt::format("<span>aaaaaaaaa\u2026aaaaaaaa-{}", i)) >= 2);  // legends
    CHECK(count(page, "<th scope=\"col\">" + name) == 0);
  }
  runs.pop_back();
  CHECK(count(page_of(runs), "\u2026") == 0);
}

TEST_CASE("hard runs: one step, a diverged one, odd names, no job.toml") {
  RunMetrics young;
  young.directory = "runs/young";
  young.name = "\x1b[31m<young> & \"\xff\"";
  young.add_step({1, 1000, {{"dense", 5}}});
  RunMetrics diverged;
  diverged.name = "diverged";
  diverged.add_step({1, 1000, {{"dense", unknown}}});
  diverged.add("gradient_norm", "dense", 1, unknown);
  const JobSettings none = read_job_settings("/no/such/run");
  CHECK(none.missing.find("/no/such/run/job.toml") != std::string::npos);
  for (const auto& runs : {std::vector{young}, std::vector{diverged}, std::vector{young, diverged}}) {
    const std::string page = make_page(runs, std::vector(runs.size(), none), 0);
    CHECK(xml_error(page) == "");
    CHECK(page.find("nan") == std::string::npos);
    CHECK(page.find('\x1b') == std::string::npos);
  }
  const JobSettings broken = job("[job\nkind");
  CHECK(broken.missing.find("job.toml:1") != std::string::npos);
  CHECK(broken.text == "[job\nkind");
}

TEST_CASE("no two lines of a panel look alike, however many patterns and runs there are") {
  const auto with_patterns = [](const std::string& name, int patterns) {
    RunMetrics run = whole_run(name, 20);
    std::vector<PatternLoss> losses;
    for (int i = 0; i < patterns; ++i) losses.push_back({fmt::format("{},0,4", 2 + i), 5.0 + i});
    run.add_validation({20, 20'000, losses});
    return run;
  };
  std::vector<std::vector<RunMetrics>> groups;
  for (const int patterns : {1, 4, 5, 8, 12, 30}) {
    groups.push_back({with_patterns("a", patterns)});
    groups.push_back({with_patterns("a", patterns), with_patterns("b", 3), with_patterns("c", 1)});
  }
  groups.emplace_back();
  for (int i = 0; i < 19; ++i) groups.back().push_back(whole_run(fmt::format("run{}", i), 5));
  for (const auto& runs : groups) {
    for (const Panel& panel : make_panels(runs, 100)) {
      std::set<std::string> looks;
      for (const PanelLine& line : panel.lines) looks.insert(line_colour(line) + dashes_of(line.dashes));
      CAPTURE(panel.title);
      CHECK(looks.size() == panel.lines.size());
      if (runs.size() > 1 && runs.size() < 9) {
        for (const PanelLine& line : panel.lines) CHECK(line.dashes < 6);  // which eyes can tell apart
      }
    }
  }
  std::set<std::string> all;
  for (std::size_t i = 0; i < 40; ++i) all.insert(dashes_of(i));
  CHECK(all.size() == 40);
}

TEST_CASE("the labels of all axes have room left of the plots") {
  RunMetrics run = whole_run("a", 20);
  for (int step = 1; step <= 20; ++step) {
    run.add("health_lag_seconds", "", step, 1e-7 * step);
    run.add("learning_rate", "", step, 1.98765e-3 + 1e-8 * step);
    run.add("some_number", "", step, 123456.5 + 1e-3 * step);
  }
  const auto panels = make_panels(std::span(&run, 1), 100);
  const auto geometry = geometry_for(panels);
  CHECK(geometry.left > PanelGeometry{}.left);
  for (const Panel& panel : panels) {
    const auto picture = draw_panel(panel, 20'000, geometry);
    const std::regex label("<text x=\"([0-9.]+)\"[^>]*text-anchor=\"end\"[^>]*>([^<]*)<");
    for (std::sregex_iterator it(picture.begin(), picture.end(), label), none; it != none; ++it)
      CHECK(std::stod((*it)[1]) >= text_width((*it)[2].str(), 12.5));
  }
  CHECK(curves_of(page_of({run}))["left"].get<double>() == doctest::Approx(geometry.left));
}

TEST_CASE("tables of several runs can be stacked on a phone; what a run lacks is one dash") {
  RunMetrics other = whole_run("other", 20);
  other.add_validation({20, 20'000, {{"8,0,4", 5}}});
  const auto page = page_of({whole_run("a", 20), other});
  CHECK(count(page, "<div class=\"wide several\" style=\"--runs: 2\">") == 2);
  CHECK(count(page, "- / -") == 0);
  CHECK(count(page_of({other}), "<div class=\"wide\">") == 2);
  CHECK(page.find("@media (max-width: 700px)") != std::string::npos);
}

}  // namespace ratplus::report
