using System.CommandLine;
using System.CommandLine.Parsing;

namespace Sluice.Console;

/// <summary>What validators may ask: an option's value cannot be read before it is known to be well-formed.</summary>
internal static class Given
{
    public static bool Has(this SymbolResult result, Option option) => result.GetResult(option) is { Implicit: false };
}
