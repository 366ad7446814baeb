// Statuses of HTTP that the server answers with (RFC 9110, section 15; too_many: RFC 6585).
#pragma once

namespace ratplus::serve {

inline constexpr int bad_request = 400, unauthorized = 401, not_found = 404, wrong_method = 405,
                     unsupported_media_type = 415, too_many = 429, server_failed = 500, not_implemented = 501,
                     unavailable = 503, timed_out = 504;

}  // namespace ratplus::serve
