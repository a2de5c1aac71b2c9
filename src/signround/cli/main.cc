#include <cstdio>

int main() { std::puts("signround"); }
