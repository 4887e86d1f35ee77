using System.Diagnostics;
using Microsoft.Win32.SafeHandles;

namespace Sluice.Tests.Host;

/// <summary>Seeded changes of a file's bytes: each must load or be refused by a typed error, within a second and a few megabytes.</summary>
internal static class Fuzz
{
    private const long MostAllocated = 8 << 20;

    // What lengths, counts and JSON break on.
    private static readonly byte[] Telling = [0x00, 0x01, 0x7F, 0x80, 0xFF, 0x08, 0x09, (byte)'"', (byte)'{', (byte)'}', (byte)'[', (byte)']', (byte)'-', (byte)'9', (byte)'\\', (byte)','];

    /// <summary>Changed files a kind: SLUICE_FUZZ_ROUNDS (CI: 100,000), else a part of that which nobody waits for.</summary>
    public static int Rounds { get; } = int.TryParse(Environment.GetEnvironmentVariable("SLUICE_FUZZ_ROUNDS"), out int rounds) ? rounds : 10_000;

    /// <summary>Writes a file over what was there: truncating it first would make some file systems wait for the disk.</summary>
    public static void Write(string path, ReadOnlySpan<byte> bytes)
    {
        using SafeFileHandle file = File.OpenHandle(path, FileMode.OpenOrCreate, FileAccess.Write);
        RandomAccess.Write(file, bytes, 0);
        RandomAccess.SetLength(file, bytes.Length);
    }

    /// <summary>Changes one to three of the first <paramref name="length"/> bytes each round; returns how many files were refused.</summary>
    public static int Flip(byte[] good, int length, int seed, Action<byte[]> load)
    {
        Random random = new(seed);
        byte[] bad = (byte[])good.Clone();
        Stopwatch watch = new();
        int refused = 0;
        for (int round = 0; round < Rounds; round++)
        {
            good.CopyTo(bad, 0);
            for (int change = random.Next(1, 4); change > 0; change--)
            {
                bad[random.Next(length)] = random.Next(2) == 0 ? Telling[random.Next(Telling.Length)] : (byte)random.Next(256);
            }

            long before = GC.GetAllocatedBytesForCurrentThread();
            watch.Restart();
            try
            {
                load(bad);
            }
            catch (SluiceModelException)
            {
                refused++;
            }
            catch (Exception e)
            {
                Assert.Fail($"round {round}: {e.GetType().Name}: {e.Message}\n{Convert.ToBase64String(bad)}\n{e.StackTrace}");
            }

            // A second is the promise; the rest is for a machine that runs other things too.
            Assert.True(watch.Elapsed < TimeSpan.FromSeconds(30), $"round {round} took {watch.Elapsed}");
            Assert.True(GC.GetAllocatedBytesForCurrentThread() - before < MostAllocated, $"round {round} allocated {GC.GetAllocatedBytesForCurrentThread() - before:N0} bytes");
        }

        return refused;
    }
}
