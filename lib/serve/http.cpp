#include "lib/serve/http.h"

#include <nlohmann/json.hpp>

#include "base/json_dump.h"

namespace ratplus::serve {
namespace {

const char* type_of(int status) {
  if (status == 401) return "authentication_error";
  if (status == 404) return "not_found_error";
  if (status == 429) return "rate_limit_error";
  return status < 500 ? "invalid_request_error" : "server_error";
}

}  // namespace

HttpResponse error_response(const ApiError& error) {
  nlohmann::ordered_json body;
  auto& fields = body["error"];
  fields["message"] = error.what();
  fields["type"] = type_of(error.status());
  fields["param"] = nullptr;
  fields["code"] = nullptr;
  if (!error.param().empty()) fields["param"] = error.param();
  if (!error.code().empty()) fields["code"] = error.code();
  HttpResponse response{.status = error.status(), .body = json_dump(body)};
  if (error.status() == 429 || error.status() == 503) response.headers.emplace_back("Retry-After", "1");
  if (error.status() == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  return response;
}

}  // namespace ratplus::serve
