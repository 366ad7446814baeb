/// Asked by LeakSanitizer. HDF5 1.10 itself forgets memory when it finds an object's metadata damaged, which
/// the tests of damage make it do some thousand times. What our own code holds is still checked.
extern "C" const char* __lsan_default_suppressions();  // NOLINT(bugprone-reserved-identifier)
extern "C" const char* __lsan_default_suppressions() {
  return "leak:libhdf5";
}  // NOLINT(bugprone-reserved-identifier)
